"""The practice provider's pages, as HTML: a payment as its customer sees it, and the newest payments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from payments.sandbox.books import Payment
from shop.kernel.money import Money

STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d9dce1, #3a3f47); --soft: light-dark(#5b6470, #a3abb6);
  --card: light-dark(#fff, #1d2126); --page: light-dark(#f3f4f6, #14171a); --go: #17694a; --no: #a12f2f; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; background: var(--page); }
main { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
main.narrow { max-width: 28rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1.5rem; }
h1 { font-size: 1.2rem; margin: 0 0 1rem; }
h2 { font-size: 1rem; margin: 2rem 0 .5rem; }
.amount { font-size: 2.2rem; font-weight: 650; line-height: 1.2; }
.soft { color: var(--soft); }
.state { display: inline-block; border: 1px solid currentColor; border-radius: 99px; padding: 0 .7rem; }
.captured, .paid { color: light-dark(#17694a, #5fc79b); }
.declined, .voided, .expired { color: light-dark(#a12f2f, #ee8f8f); }
.problem { border-left: 4px solid var(--no); padding: .3rem .8rem; margin: 1rem 0; }
form { display: inline; }
button { font: inherit; font-weight: 600; border: 0; border-radius: 8px; padding: .6rem 1.4rem; color: #fff;
  background: var(--go); margin: 1rem .5rem 0 0; cursor: pointer; }
button.no { background: var(--no); }
button:disabled { background: #8a929c; cursor: not-allowed; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { overflow-x: auto; }
"""


def payment(shown: Payment, problem: str = "") -> str:
    """A payment as its customer sees it, with what they can do now."""
    due, received = _money(shown.authorized, shown), _money(shown.received, shown)
    can_pay = shown.status in ("authorized", "captured") and shown.still_open
    can_decline = shown.status == "authorized"
    return _page(
        f"Payment for {shown.merchant_reference}",
        f"""<main class="narrow"><div class="card">
<h1>Practice payment for {escape(shown.merchant_reference)}</h1>
{f'<p class="problem" role="alert">{escape(problem)}</p>' if problem else ""}
<p class="amount">{due}</p>
<p><span class="state {shown.status}">{shown.status}</span></p>
<p>Received so far: {received}</p>
<p class="soft">Reference {escape(shown.psp_reference)}.
To be paid by {shown.authorized_until:%d %B %Y, %H:%M} UTC. No real money moves here.</p>
{_button(shown, "pay", f"Pay {_money(shown.still_open, shown)}" if can_pay else "Pay", bool(can_pay))}
{_button(shown, "decline", "Decline", can_decline)}
</div></main>""",
    )


def index(newest: Sequence[Payment], faults: dict[str, Any]) -> str:
    """The newest payments, and the faults that are on."""
    rows = "".join(
        f'<tr><td><a href="/customer/{escape(one.psp_reference)}">{escape(one.psp_reference)}</a></td>'
        f"<td>{escape(one.merchant_reference)}</td><td>{one.status}</td>"
        f'<td class="number">{_money(one.authorized, one)}</td>'
        f'<td class="number">{_money(one.received, one)}</td>'
        f'<td class="number">{_money(one.captured, one)}</td>'
        f'<td class="number">{_money(one.refunded, one)}</td></tr>'
        for one in newest
    )
    table = (
        f"""<table><thead><tr><th>Payment</th><th>Order</th><th>State</th><th class="number">Authorized</th>
<th class="number">Received</th><th class="number">Captured</th><th class="number">Refunded</th></tr></thead>
<tbody>{rows}</tbody></table>"""
        if newest
        else '<p class="soft">There are no payments yet.</p>'
    )
    on = f"<pre>{escape(json.dumps(faults, indent=2))}</pre>" if faults else '<p class="soft">None.</p>'
    return _page(
        "Practice provider",
        f"""<main><div class="card"><h1>Practice provider</h1>{table}
<h2>Faults that are on</h2>{on}</div></main>""",
    )


def unknown(problem: str) -> str:
    return _page("Not found", f'<main class="narrow"><div class="card"><p>{escape(problem)}</p></div></main>')


def _button(shown: Payment, action: str, label: str, enabled: bool) -> str:
    kind = ' class="no"' if action == "decline" else ""
    off = "" if enabled else " disabled"
    path = f"/customer/{escape(shown.psp_reference)}/{action}"
    return f'<form method="post" action="{path}"><button{kind}{off}>{label}</button></form>'


def _money(amount: int, of: Payment) -> str:
    return escape(Money(amount, of.currency).format())


def _page(title: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><link rel="stylesheet" href="/style.css"></head>
<body>{body}</body></html>"""
