"""The GiroCode: a QR code that banking apps read a transfer from.

EPC069-12 version 002, UTF-8, with the ISO 11649 reference in its structured field. All is checked before
drawing: the library that draws checks lengths only, and a customer finds an error in a code too late.
"""

from __future__ import annotations

import io
from base64 import b64encode
from typing import Any

from django.utils.translation import gettext as _
from segno.helpers import make_epc_qr
from stdnum import iso11649
from stdnum.exceptions import ValidationError

from payments.banking.account import NAME_LENGTH, AccountInvalid, shortened, valid_bic, valid_iban
from payments.banking.instructions import Instructions
from shop.kernel.money import Money

LEAST, MOST = Money(1, "EUR"), Money(999_999_999_99, "EUR")


class NoGirocode(ValueError):
    """These instructions cannot be a GiroCode; the message says why."""


def girocode_svg(instructions: Instructions) -> str:
    """The code as an `svg` element to put into a page; it needs no style and no script."""
    svg: str = _drawn(instructions).svg_inline(scale=4, border=4, title="GiroCode")
    return svg


def girocode_png(instructions: Instructions) -> bytes:
    """The code as a PNG image, black on white."""
    buffer = io.BytesIO()
    _drawn(instructions).save(buffer, kind="png", scale=5, border=4)
    return buffer.getvalue()


def girocode_data_uri(instructions: Instructions) -> str:
    """The PNG as a `data:` address. A mail that has it is sent with the image attached (orders' mails)."""
    return "data:image/png;base64," + b64encode(girocode_png(instructions)).decode()


def why_no_girocode(instructions: Instructions) -> str:
    """Why there is no code for these instructions, as a sentence; empty where there is one."""
    try:
        _check(instructions)
    except NoGirocode as reason:
        return str(reason)
    return ""


def _check(given: Instructions) -> None:
    if given.money.currency != "EUR":
        raise NoGirocode(_("A GiroCode is for euros; %(money)s are not.") % {"money": given.money})
    if not LEAST <= given.money <= MOST:
        raise NoGirocode(
            _("A GiroCode is for %(least)s to %(most)s, not for %(money)s.")
            % {"least": LEAST, "most": MOST, "money": given.money}
        )
    name = given.name.strip()
    if not name or len(name) > NAME_LENGTH or not name.isprintable():
        raise NoGirocode(_("A GiroCode names its payee in 1 to %s characters on one line.") % NAME_LENGTH)
    try:
        iban = valid_iban(given.iban)
        bic = valid_bic(given.bic)
    except AccountInvalid as error:
        raise NoGirocode(str(error)) from error
    if (iban, bic) != (given.iban, given.bic):
        raise NoGirocode(_("IBAN and BIC stand in a GiroCode in upper case and without spaces."))
    try:
        reference = iso11649.validate(given.creditor_reference)
    except ValidationError as error:
        raise NoGirocode(
            _("%(text)s is not an ISO 11649 creditor reference.")
            % {"text": shortened(given.creditor_reference)}
        ) from error
    if reference != given.creditor_reference:
        raise NoGirocode(_("The reference stands in a GiroCode in upper case and without spaces."))


def _drawn(given: Instructions) -> Any:
    _check(given)
    try:
        return make_epc_qr(
            name=given.name.strip(),
            iban=given.iban,
            bic=given.bic,
            amount=given.money.decimal,
            reference=given.creditor_reference,
            encoding="utf-8",
        )
    except ValueError as error:  # the name in UTF-8 makes it longer than a GiroCode may be
        raise NoGirocode(
            _("These instructions do not fit into a GiroCode: %(error)s") % {"error": error}
        ) from error
