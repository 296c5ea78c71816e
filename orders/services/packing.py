"""The packing slip: what goes into the parcel and where it goes. No prices: it may be a present.

PDF's built-in fonts know Latin-1 only (Western European letters, umlauts among them). Other letters are
written without their accents, and what has no Latin form at all as “?”; the order's page shows them right.
"""

from __future__ import annotations

import unicodedata

from django.utils.formats import date_format
from django.utils.translation import gettext as _
from fpdf import FPDF, FontFace

from orders.models import Order

_SPECIAL = str.maketrans(
    {
        "Ł": "L", "ł": "l", "Đ": "D", "đ": "d", "ı": "i", "Œ": "OE", "œ": "oe", "ẞ": "SS",
        "–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "„": '"', "…": "...", "€": "EUR",
    }
)  # fmt: skip


def packing_slip(order: Order, shop_name: str) -> bytes:
    """The slip as a PDF, A4."""
    pdf = FPDF(format="A4")
    pdf.set_title(f"{order.number}")
    pdf.set_margins(20, 20, 20)
    pdf.set_auto_page_break(True, 20)
    pdf.add_page()
    pdf.set_font("Helvetica", size=9)
    pdf.cell(0, 6, printable(shop_name), new_x="LMARGIN", new_y="NEXT")
    pdf.ln(8)
    pdf.set_font("Helvetica", size=11)
    address = [
        order.shipping_name,
        order.shipping_street,
        f"{order.shipping_postal_code} {order.shipping_city}",
        order.shipping_country,
    ]
    pdf.multi_cell(90, 5.5, printable("\n".join(address)), new_x="LMARGIN", new_y="NEXT")
    pdf.ln(14)
    pdf.set_font("Helvetica", "B", 16)
    pdf.cell(
        0, 9, printable(_("Packing slip {order}").format(order=order.number)), new_x="LMARGIN", new_y="NEXT"
    )
    pdf.set_font("Helvetica", size=10)
    ordered = _("Ordered on {day}").format(day=date_format(order.created_at))
    pdf.cell(0, 6, printable(ordered), new_x="LMARGIN", new_y="NEXT")
    pdf.ln(6)
    _lines(pdf, order)
    return bytes(pdf.output())


def _lines(pdf: FPDF, order: Order) -> None:
    widths = (25, 45, 100)
    heading = FontFace(emphasis="BOLD")
    with pdf.table(
        col_widths=widths, text_align=("RIGHT", "LEFT", "LEFT"), headings_style=heading, line_height=6,
        borders_layout="HORIZONTAL_LINES",
    ) as table:  # fmt: skip
        table.row((printable(_("Quantity")), printable(_("SKU")), printable(_("Article"))))
        for line in order.lines.all():
            table.row((str(line.quantity), printable(line.sku), printable(line.name)))


def printable(text: str) -> str:
    """The text in Latin-1."""
    return "".join(map(_letter, unicodedata.normalize("NFC", text.translate(_SPECIAL))))


def _letter(letter: str) -> str:
    if ord(letter) < 256:
        return letter
    base = "".join(c for c in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(c))
    return base.encode("latin-1", "replace").decode("latin-1")
