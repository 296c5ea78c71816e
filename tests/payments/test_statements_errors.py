"""Files that cannot be imported: each is refused in a sentence that says what, where and what to do."""

from __future__ import annotations

import contextlib
import io
import itertools
import random
import time
import zipfile

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from payments.statements import StatementError, archive, read
from payments.statements.reading import LARGEST
from tests.payments.statements.bank import Entry, Part, camt, details, mt940, statements

CAMT = camt([Entry(reference="A", parts=[Part(amount="10.00", lines=("ORD-100001",))]), Entry(amount="3.00")])
MT940 = mt940(":61:2603020302CR49,90N166NONREF//B1", details("SVWZ+ORD-100001"), closing="C260302EUR149,90")


def refusal(content: str | bytes) -> str:
    with pytest.raises(StatementError) as caught:
        statements(content, "march.xml")
    sentence = str(caught.value)
    assert sentence.startswith("march.xml")
    assert sentence.endswith(".")
    return sentence


def zipped(files: dict[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as writer:
        for name, content in files.items():
            writer.writestr(name, content)
    return buffer.getvalue()


# --- not a statement -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "march.xml: the file is empty. In the bank's portal, export the statement as camt.053 (XML) or MT940."),
        (b" \r\n\0", "the file is empty"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "this is a PDF document"),
        (b"\x1f\x8b\x08\0", "unpack it first"),
        (b"\xd0\xcf\x11\xe0\xa1", "an old Office document"),
        ("Buchungstag;Betrag;Verwendungszweck\n02.03.2026;49,90;ORD-100001\n", "this is a table (CSV)"),
        ("<!DOCTYPE html>\n<html><body>Anmelden</body></html>", "this is a web page"),
        ("\ufeff\n<html lang=de>", "Log in to the bank's portal and download the statement again."),
        ("Sehr geehrte Damen und Herren", "this is not a bank statement"),
        (bytes(range(256)) * 20, "this is not a bank statement"),
        ("<a><b/></a>", "this XML is not a bank statement"),
        ('<Document xmlns="http://example.org"/>', "this XML is not a bank statement"),
        (CAMT.replace("camt.053.001.08", "pain.001.001.09"), "a payment order for the bank (pain.001)"),
        (CAMT.replace("camt.053", "camt.052"), "an intraday report (camt.052)"),
        (CAMT.replace("camt.053.001.08", "camt.029.001.09"), "a message of the kind camt.029"),
        (CAMT.replace("camt.053.001.08", "camt.053.001.99"), "the version camt.053.001.99 is not known here"),
        (CAMT.replace("camt.053.001.08", "camt.053.002.08"), "the version camt.053.002.08 is not known here"),
        (camt([]).replace("Stmt>", "Other>"), "this camt.053.001.08 holds no statement"),
    ],
)  # fmt: skip
def test_what_is_no_statement_is_named_for_what_it_is(content: str | bytes, message: str) -> None:
    assert message in refusal(content)


def test_a_namespace_that_wraps_the_iso_name_is_read() -> None:
    text = CAMT.replace(
        "urn:iso:std:iso:20022:tech:xsd:camt.053.001.08", "ISO:camt.053.001.02:APC:STUZZA:payments:003"
    )
    assert statements(text)[0].kind == "camt.053.001.02"


def test_a_document_in_an_envelope_is_read() -> None:
    declaration, body = CAMT.split("\n", 1)
    text = (
        f'{declaration}<Envelope xmlns="urn:swift:xsd:envelope"><AppHdr><Fr>X</Fr></AppHdr>{body}</Envelope>'
    )
    assert len(statements(text)[0].transactions) == 2


# --- attacks ---------------------------------------------------------------------------------------------

LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 30))
DOCTYPES = {
    "entity bomb": f'<!DOCTYPE Document [<!ENTITY l0 "ha">{LAUGHS}]>',
    "file": '<!DOCTYPE Document [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
    "network": '<!DOCTYPE Document [<!ENTITY x SYSTEM "http://127.0.0.1:9/x">]>',
    "parameter": '<!DOCTYPE Document [<!ENTITY % x SYSTEM "http://127.0.0.1:9/x"> %x;]>',
    "external type": '<!DOCTYPE Document SYSTEM "http://127.0.0.1:9/x.dtd">',
    "plain": "<!DOCTYPE Document>",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
@pytest.mark.parametrize("doctype", DOCTYPES.values(), ids=DOCTYPES)
def test_entities_are_refused_before_any_is_read(doctype: str, encoding: str) -> None:
    declaration, body = CAMT.split("\n", 1)
    body = body.replace("ORD-100001", "&x;&l29;")
    text = f"{declaration.replace('UTF-8', encoding)}\n<!-- one -->{doctype}\n{body}"
    started = time.monotonic()
    assert "line 2: the file declares a document type or entities" in refusal(text.encode(encoding))
    assert time.monotonic() - started < 1


def test_a_document_type_behind_a_long_comment_is_not_read_either() -> None:
    declaration, body = CAMT.split("\n", 1)
    comment = f"<!--{'x' * 200_000}-->"
    refusal(f"{declaration}\n{comment}{DOCTYPES['file']}{body}")


def test_nesting_without_end_is_refused() -> None:
    head, tail = CAMT.split("<Ntry>", 1)
    refusal(f"{head}<Ntry>{'<a>' * 100_000}{'</a>' * 100_000}{tail}")


def test_a_file_that_never_comes_to_an_entry_is_given_up() -> None:
    head, tail = CAMT.split("<Ntry>", 1)
    assert "16 MB without an entry" in refusal(f"{head}{'<Bal/>' * 4_000_000}<Ntry>{tail}")


class Zeros(io.RawIOBase):
    """A file of 200 MB that counts what is read of it."""

    def __init__(self, head: bytes, seekable: bool) -> None:
        self.head, self.size, self.at, self.taken, self.can_seek = head, 200 * 1024 * 1024, 0, 0, seekable

    def seekable(self) -> bool:
        return self.can_seek

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset + (self.size if whence == 2 else 0)
        return self.at

    def read(self, size: int = -1) -> bytes:
        data = (self.head + b" " * size)[:size] if self.at == 0 else b" " * min(size, self.size - self.at)
        self.at += len(data)
        self.taken += len(data)
        return data


@pytest.mark.parametrize(("seekable", "most"), [(True, 0), (False, LARGEST + 128 * 1024)])
def test_a_file_of_200_mb_is_refused_without_reading_it_whole(seekable: bool, most: int) -> None:
    file = Zeros(CAMT.encode(), seekable)
    with pytest.raises(StatementError, match=r"the file is over 100 MB\. Export a shorter period"):
        list(read("year.xml", file))  # type: ignore[arg-type]
    assert file.taken <= most


def test_a_stream_that_cannot_seek_is_read() -> None:
    class Stream(io.BytesIO):
        def seekable(self) -> bool:
            return False

    assert len(list(read("x", Stream(CAMT.encode())))) == 1


# --- broken ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('<Amt Ccy="EUR">3.00', '<Amt Ccy="EUR">3,00', "entry 2 (line 8): the amount '3,00' is not a number."),
        ('<Amt Ccy="EUR">3.00', '<Amt Ccy="EUR">-3.00', "entry 2 (line 8): the amount '-3.00' is not a number."),
        ('<Amt Ccy="EUR">3.00', '<Amt Ccy="EUR">1e9', "the amount '1e9' is not a number."),
        ('<Amt Ccy="EUR">3.00', '<Amt Ccy="EUR">NaN', "the amount 'NaN' is not a number."),
        ('<Amt Ccy="EUR">3.00', '<Amt Ccy="EUR">٣.00', "is not a number."),
        ('<Amt Ccy="EUR">3.00', f'<Amt Ccy="EUR">{"9" * 5000}', "is not a number."),
        ('<Amt Ccy="EUR">3.00', '<Amt Ccy="EUR">3.005', "the amount '3.005' has more decimals than EUR has."),
        ('<Amt Ccy="EUR">3.00', '<Amt Ccy="EURO">3.00', "'EURO' is not a currency."),
        ('<Amt Ccy="EUR">3.00', '<Amt Ccy="ABC">3.00', "'ABC' is not a currency."),
        ('<Amt Ccy="EUR">3.00', "<Amt>3.00", "'' is not a currency."),
        ('<Amt Ccy="EUR">3.00</Amt>', "", "entry 2 (line 8): the amount (Amt) or its direction (CdtDbtInd) is"),
        ("<CdtDbtInd>CRDT</CdtDbtInd><Sts>", "<CdtDbtInd>CREDIT</CdtDbtInd><Sts>", "is 'CREDIT', neither CRDT nor"),
        ("<Sts><Cd>BOOK</Cd></Sts>", "", "entry 1 (line 7): the status (Sts) is missing."),
        ("<BookgDt><Dt>2026-03-02", "<BookgDt><Dt>02.03.2026", "entry 1 (line 7): '02.03.2026' is not a date."),
        ("<BookgDt><Dt>2026-03-02", "<BookgDt><Dt>2026-02-30", "entry 1 (line 7): '2026-02-30' is not a date."),
        ('<Amt Ccy="EUR">100.00', '<Amt Ccy="EUR">hundred', "the head of the statement: the amount 'hundred'"),
        ('<Amt Ccy="EUR">113.00', '<Amt Ccy="EUR">112.99', "statement 2026-03-02/1: the balance does not add up"),
        ("</Ntry>", "</Entry>", "line 7, after entry 1: the XML is broken or cut off there."),
        ("<Ustrd>", "<Ustrd>\x01", "the XML is broken or cut off there."),
        ("<Ustrd>", "<Ustrd>&nbsp;", "the XML is broken or cut off there."),
        ('encoding="UTF-8"', 'encoding="klingon"', "the XML is broken there."),
        ('encoding="UTF-8"', 'encoding="shift_jis"', "the XML is broken there."),
    ],
)  # fmt: skip
def test_what_is_broken_is_said_with_its_place(old: str, new: str, message: str) -> None:
    assert old in CAMT
    assert message in refusal(CAMT.replace(old, new, 1))


def test_money_is_read_to_the_cent_with_trailing_zeros() -> None:
    (statement,) = statements(CAMT.replace(">3.00<", ">3.00000<"))
    assert [each.money.amount for each in statement.transactions] == [1000, 300]


# --- archives --------------------------------------------------------------------------------------------


def test_an_archive_gives_the_statements_of_all_its_files() -> None:
    content = zipped(
        {"a/one.xml": CAMT, "two.sta": MT940, "a/": "", "__MACOSX/._one.xml": "x", ".DS_Store": "x"}
    )
    assert [(each.file, each.kind) for each in statements(content, "march.zip")] == [
        ("march.zip › a/one.xml", "camt.053.001.08"),
        ("march.zip › two.sta", "MT940"),
    ]


def with_password(content: bytes) -> bytes:
    """The flag alone: Python's zipfile reads such archives and does not write them."""
    return content.replace(b"PK\x03\x04\x14\0\0\0", b"PK\x03\x04\x14\0\1\0").replace(
        b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\1\0"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped({}), "the archive is empty"),
        (zipped({"one.xml": CAMT})[:-30], "the archive is broken or cut off"),
        (b"PK\x03\x04" + b"\0" * 100, "the archive is broken or cut off"),
        (
            zipped({"one.xml": CAMT}, zipfile.ZIP_STORED).replace(b"ORD-100001", b"ORD-100002"),
            "the archive is broken",
        ),
        (zipped({"readme.pdf": "%PDF-1.4"}), "march.xml › readme.pdf: this is a PDF document"),
        (zipped({"inner.zip": zipped({"one.xml": CAMT})}), "march.xml › inner.zip: an archive in an archive"),
        (with_password(zipped({"one.xml": CAMT})), "march.xml › one.xml: it is protected by a password"),
        (zipped({"[Content_Types].xml": "<Types/>", "xl/a.xml": "<a/>"}), "this is an Office document"),
        (zipped({f"{n}.xml": "" for n in range(1001)}), "the archive holds over 1000 files"),
        (zipped({"bomb.xml": b"\0" * (5 * 1024 * 1024)}), "far more than a statement would"),
    ],
)
def test_an_archive_that_cannot_be_read_is_refused_in_words(content: bytes, message: str) -> None:
    assert message in refusal(content)


def test_an_archive_that_unpacks_to_over_100_mb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_BYTES", len(CAMT) + 10)
    assert "unpacked, the archive is over" in refusal(zipped({"1.xml": CAMT, "2.xml": CAMT}))


def test_a_size_that_an_archive_only_claims_is_not_believed() -> None:
    content = bytearray(zipped({"bomb.xml": b"\0" * (5 * 1024 * 1024)}))
    for signature, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = content.index(signature) + place
        content[start : start + 4] = (1000).to_bytes(4, "little")
    refusal(bytes(content))


# --- anything at all -------------------------------------------------------------------------------------

FILES = [
    CAMT.encode(),
    CAMT.replace("UTF-8", "UTF-16").encode("utf-16"),
    MT940.encode(),
    zipped({"one.xml": CAMT, "two.sta": MT940}),
]


def only_sentences(content: bytes) -> None:
    started = time.monotonic()
    with contextlib.suppress(StatementError):
        for statement in read("any", io.BytesIO(content)):
            list(statement.transactions)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("content", FILES, ids=["camt", "camt-utf-16", "mt940", "zip"])
def test_a_file_cut_off_anywhere_is_refused(content: bytes) -> None:
    # An MT940 whose closing balance is whole is whole, and 149,9 is 149,90.
    ends = {b":20:": b",90\r\n-", b"PK": b"PK\5\6"}
    end = next((end for head, end in ends.items() if content.startswith(head)), b">")
    whole = content.rfind(end)
    for length in range(whole):
        with pytest.raises(StatementError):
            statements(content[:length])


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.sampled_from([b"<", b"PK", b":20:", b"<?xml", b"\xff\xfe<\0"]).flatmap(
    lambda head: st.binary(max_size=300).map(lambda tail: head + tail))))  # fmt: skip
@example(b"\xff\xfe")
@example(b"<\0")
def test_random_bytes_give_a_sentence(content: bytes) -> None:
    only_sentences(content)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(FILES),
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 3), st.binary(min_size=1, max_size=4)),
        min_size=1,
        max_size=6,
    ),
)
def test_a_changed_file_gives_a_statement_or_a_sentence(
    content: bytes, edits: list[tuple[float, int, bytes]]
) -> None:
    changed = bytearray(content)
    for place, removed, added in edits:
        at = int(place * len(changed))
        changed[at : at + removed] = added
    only_sentences(bytes(changed))


PIECES = [b"<Ntry>", b"</Ntry>", b"<TxDtls>", b"</TxDtls>", b"<Amt Ccy='EUR'>1.00</Amt>", b"<Bal>", b"</Bal>", b"&amp;",
          b"<!-- -->", b"<![CDATA[", b"]]>", b"<?pi?>", b"<Stmt>", b"</Stmt>", b"\r\n:61:", b"\r\n:86:", b"\r\n:62F:",
          b"\r\n:20:", b"\r\n-\r\n", b"C260302EUR1,00", b"\0", b"<x:y/>", b'xmlns:x="y"', b"\r\n:60F:C"]  # fmt: skip


def test_files_of_shuffled_pieces_give_a_statement_or_a_sentence() -> None:
    choose = random.Random(4711)
    for content, count in itertools.product(FILES[:3], range(150)):
        changed = bytearray(content)
        for _ in range(count % 4 + 1):
            at = choose.randrange(len(changed))
            changed[at:at] = choose.choice(PIECES)
        only_sentences(bytes(changed))
