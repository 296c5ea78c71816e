"""A bank that writes statements: camt in any version, and MT940. The tests' other side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from payments.statements import Statement, Transaction, read

OUR_IBAN = "DE02120300000000202051"
PAYER_IBAN = "DE89370400440532013000"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A transaction of an entry. Amounts are decimals as written; `side` is CRDT or DBIT."""

    amount: str = ""
    side: str = ""
    end_to_end_id: str = "NOTPROVIDED"
    reference: str = ""
    lines: Sequence[str] = ()
    structured: str = ""
    debtor: tuple[str, str] = ("Erika Müller", PAYER_IBAN)
    creditor: tuple[str, str] = ("Vorkasse GmbH", OUR_IBAN)
    returned: str = ""
    message_id: str = ""
    payment_information_id: str = ""
    instruction_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Entry:
    amount: str = "10.00"
    side: str = "CRDT"
    currency: str = "EUR"
    status: str = "BOOK"
    reversal: bool = False
    reference: str = ""
    number: str = ""
    code: str = "PMNT/RCDT/ESCT"
    booked: str = "2026-03-02"
    valued: str = "2026-03-02"
    batch: tuple[str, str] | None = None
    parts: Sequence[Part] = field(default_factory=lambda: (Part(),))


def camt(
    entries: Sequence[Entry],
    *,
    version: int = 8,
    message: str = "camt.053",
    opening: str = "100.00",
    closing: str | None = None,
    identifier: str = "2026-03-02/1",
    iban: str = OUR_IBAN,
) -> str:
    """A whole document. The closing balance is the right one unless told."""
    return document(
        [statement(entries, version, message, opening, closing, identifier, iban)],
        version=version,
        message=message,
    )


def document(statements: Sequence[str], *, version: int = 8, message: str = "camt.053") -> str:
    root = {"camt.053": "BkToCstmrStmt", "camt.054": "BkToCstmrDbtCdtNtfctn"}[message]
    root += "V01" if version == 1 else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<Document xmlns="urn:iso:std:iso:20022:tech:xsd:{message}.001.{version:02d}"><{root}>\n'
        "<GrpHdr><MsgId>MSG-1</MsgId><CreDtTm>2026-03-02T20:15:00+01:00</CreDtTm></GrpHdr>\n"
        + "\n".join(statements)
        + f"\n</{root}></Document>\n"
    )


def statement(
    entries: Sequence[Entry],
    version: int = 8,
    message: str = "camt.053",
    opening: str = "100.00",
    closing: str | None = None,
    identifier: str = "2026-03-02/1",
    iban: str = OUR_IBAN,
) -> str:
    total = cents(opening) + sum(
        cents(entry.amount) * (1 if entry.side == "CRDT" else -1)
        for entry in entries
        if entry.status == "BOOK"
    )
    balances = ""
    if message == "camt.053":
        for code, amount in (("OPBD", opening), ("CLBD", closing or f"{total / 100:.2f}")):
            kind = f"<Cd>{code}</Cd>" if version == 1 else f"<CdOrPrtry><Cd>{code}</Cd></CdOrPrtry>"
            balances += (
                f'<Bal><Tp>{kind}</Tp><Amt Ccy="EUR">{amount.lstrip("-")}</Amt>'
                f"<CdtDbtInd>{'DBIT' if amount.startswith('-') else 'CRDT'}</CdtDbtInd>"
                "<Dt><Dt>2026-03-02</Dt></Dt></Bal>\n"
            )
    tag = "Stmt" if message == "camt.053" else "Ntfctn"
    return (
        f"<{tag}><Id>{identifier}</Id><ElctrncSeqNb>42</ElctrncSeqNb>"
        "<CreDtTm>2026-03-02T20:15:00+01:00</CreDtTm>"
        f"<Acct><Id><IBAN>{iban}</IBAN></Id><Ccy>EUR</Ccy></Acct>\n"
        f"{balances}{''.join(_entry(entry, version) for entry in entries)}</{tag}>"
    )


def cents(amount: str) -> int:
    return round(float(amount) * 100)


def _entry(entry: Entry, version: int) -> str:
    status = entry.status if version < 7 else f"<Cd>{entry.status}</Cd>"
    batch = ""
    if entry.batch:
        batch = f"<Btch><MsgId>{entry.batch[0]}</MsgId><PmtInfId>{entry.batch[1]}</PmtInfId></Btch>"
    parts = "".join(_part(part, entry, version) for part in entry.parts)
    details = (
        batch + parts if version == 1 else f"<NtryDtls>{batch}{parts}</NtryDtls>" if batch or parts else ""
    )
    return (
        "<Ntry>"
        + (_tag("NtryRef", entry.number) if version > 1 else "")
        + f'<Amt Ccy="{entry.currency}">{entry.amount}</Amt><CdtDbtInd>{entry.side}</CdtDbtInd>'
        + ("<RvslInd>true</RvslInd>" if entry.reversal else "")
        + f"<Sts>{status}</Sts>"
        + (f"<BookgDt><Dt>{entry.booked}</Dt></BookgDt>" if entry.booked else "")
        + (f"<ValDt><Dt>{entry.valued}</Dt></ValDt>" if entry.valued else "")
        + _tag("AcctSvcrRef", entry.reference)
        + f"<BkTxCd>{_code(entry.code)}</BkTxCd>{details}</Ntry>\n"
    )


def _part(part: Part, entry: Entry, version: int) -> str:
    amount = f'<Amt Ccy="{entry.currency}">{part.amount}</Amt>' if part.amount else ""
    if amount:
        side = f"<CdtDbtInd>{part.side or entry.side}</CdtDbtInd>"
        amount = amount + side if version >= 3 else f"<AmtDtls><TxAmt>{amount}</TxAmt></AmtDtls>"
    elif version >= 3:
        amount = f'<Amt Ccy="{entry.currency}">{entry.amount}</Amt><CdtDbtInd>{entry.side}</CdtDbtInd>'
    reference = (
        f"<{'CdtrRef' if version == 1 else 'Ref'}>{part.structured}</{'CdtrRef' if version == 1 else 'Ref'}>"
    )
    remittance = "".join(f"<Ustrd>{escape(line)}</Ustrd>" for line in part.lines)
    if part.structured:
        remittance += f"<Strd><CdtrRefInf>{reference}</CdtrRefInf></Strd>"
    reason = ("RtrRsn", part.returned) if version == 1 else ("Rsn", part.returned)
    return (
        "<TxDtls><Refs>"
        + _tag("MsgId", part.message_id)
        + _tag("AcctSvcrRef", part.reference)
        + (_tag("PmtInfId", part.payment_information_id) if version > 1 else "")
        + _tag("InstrId", part.instruction_id)
        + _tag("EndToEndId", part.end_to_end_id)
        + f"</Refs>{amount}<RltdPties>{_party('Dbtr', part.debtor, version)}{_party('Cdtr', part.creditor, version)}"
        + "</RltdPties>"
        + (f"<RmtInf>{remittance}</RmtInf>" if remittance else "")
        + (f"<RtrInf><{reason[0]}><Cd>{reason[1]}</Cd></{reason[0]}></RtrInf>" if part.returned else "")
        + "</TxDtls>"
    )


def _party(role: str, party: tuple[str, str], version: int) -> str:
    name = f"<Nm>{escape(party[0])}</Nm>"
    name = f"<Pty>{name}</Pty>" if version >= 7 else name
    account = f"<{role}Acct><Id><IBAN>{party[1]}</IBAN></Id></{role}Acct>" if party[1] else ""
    return f"<{role}>{name}</{role}>{account}"


def _code(code: str) -> str:
    domain, family, subfamily = code.split("/")
    return (
        f"<Domn><Cd>{domain}</Cd><Fmly><Cd>{family}</Cd><SubFmlyCd>{subfamily}</SubFmlyCd></Fmly></Domn>"
        "<Prtry><Cd>NTRF+166+9310</Cd><Issr>DK</Issr></Prtry>"
    )


def _tag(name: str, text: str) -> str:
    return f"<{name}>{text}</{name}>" if text else ""


# --- MT940 -----------------------------------------------------------------------------------------------


def details(remittance: str, *, code: str = "166", name: str = "Erika Müller", iban: str = PAYER_IBAN) -> str:
    """An :86: whose remittance is cut into subfields of 27 characters, the field into lines of 65."""
    pieces = [remittance[start : start + 27] for start in range(0, len(remittance), 27)]
    numbers = [*range(20, 30), *range(60, 64)]
    subfields = "".join(f"?{number}{piece}" for number, piece in zip(numbers, pieces, strict=False))
    whole = f":86:{code}?00GUTSCHRIFT?109310{subfields}?30COBADEFFXXX?31{iban}?32{name[:27]}?33{name[27:]}"
    return "\r\n".join(whole[start : start + 65] for start in range(0, len(whole), 65))


def mt940(
    *fields: str,
    opening: str = "C260301EUR100,00",
    closing: str,
    account: str = "12030000/0000202051",
    sequence: str = "00042/001",
) -> str:
    lines = (
        ":20:STARTUMS",
        f":25:{account}",
        f":28C:{sequence}",
        f":60F:{opening}",
        *fields,
        f":62F:{closing}",
        "-",
    )
    return "\r\n".join(lines) + "\r\n"


# --- reading it ------------------------------------------------------------------------------------------


def statements(content: str | bytes, name: str = "statement") -> list[Statement]:
    return list(read(name, io.BytesIO(content.encode() if isinstance(content, str) else content)))


def transactions(content: str | bytes) -> list[Transaction]:
    return [transaction for each in statements(content) for transaction in each.transactions]
