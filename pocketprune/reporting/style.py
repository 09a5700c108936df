"""The look of the pages: one style sheet for light and dark, wide and narrow.

The series' colours are told apart by people with any of the three kinds of colour blindness; a test simulates them.
Marks differ in shape as well.
"""

from __future__ import annotations

LIGHT = ("#0c81e7", "#dc620a", "#15755c", "#b64892", "#6e4c03", "#344350")
DARK = ("#75cefb", "#f3b972", "#308a74", "#e568be", "#e6df4b", "#c7cdd4")
LIGHT_PAPER, DARK_PAPER = "#ffffff", "#16191d"


def _series(colours: tuple[str, ...]) -> str:
    return " ".join(f"--s{number}: {colour};" for number, colour in enumerate(colours))


STYLE = f"""
:root {{ color-scheme: light dark; --paper: {LIGHT_PAPER}; --ground: #f4f5f7; --ink: #1a1e24; --muted: #59626e;
  --line: #d8dce2; --pale: #c2cad4; --warn: #8a4b00; --warn-ground: #fff4e2; {_series(LIGHT)} }}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: {DARK_PAPER}; --ground: #0e1013; --ink: #e7eaee; --muted: #9aa4b0; --line: #2c323a;
    --pale: #566272; --warn: #ffc978; --warn-ground: #2b2114; {_series(DARK)} }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--ground); color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }}
main {{ max-width: 1080px; margin: 0 auto; padding: 28px 20px 60px; }}
h1 {{ font-size: 26px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; overflow-wrap: anywhere; }}
h2 {{ font-size: 17px; margin: 0 0 4px; }}
p {{ margin: 0 0 12px; }}
.lead, .muted {{ color: var(--muted); }}
.lead {{ margin-bottom: 22px; }}
section {{ background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
  margin: 0 0 16px; min-width: 0; }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 12px; margin: 0 0 16px; }}
.tile {{ background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 14px 18px; }}
.tile b {{ display: block; font-size: 28px; line-height: 1.2; font-weight: 650; letter-spacing: -0.02em;
  font-variant-numeric: tabular-nums; }}
.charts {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); gap: 18px; }}
figure {{ margin: 0; min-width: 0; }}
figcaption {{ font-weight: 600; font-size: 14px; }}
svg {{ display: block; width: 100%; height: auto; max-width: 540px; }}
svg text {{ font-size: 12px; fill: var(--muted); font-variant-numeric: tabular-nums; }}
svg .name {{ fill: var(--ink); }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: right; padding: 7px 10px; border-top: 1px solid var(--line); vertical-align: top;
  white-space: nowrap; }}
thead th {{ border-top: 0; color: var(--muted); font-weight: 500; font-size: 13px; vertical-align: bottom; }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; }}
tbody th {{ font-weight: 500; }}
td small, .tile small {{ color: var(--muted); font-size: 13px; }}
td small {{ display: block; }}
.last {{ font-weight: 650; }}
.legend {{ display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: 13px; color: var(--muted); margin: 2px 0 8px;
  padding: 0; list-style: none; }}
.legend svg {{ width: 18px; height: 12px; display: inline-block; margin-right: 6px; }}
.notice {{ background: var(--warn-ground); color: var(--warn); border: 1px solid currentColor; border-radius: 10px;
  padding: 10px 16px; margin: 0 0 16px; }}
.notice p {{ margin: 0; overflow-wrap: anywhere; }}
.layers td {{ vertical-align: middle; padding: 5px 10px; }}
.layers thead th {{ text-align: left; }}
.layers .what {{ text-align: left; overflow-wrap: anywhere; white-space: normal; min-width: 9ch; padding-left: 0; }}
.layers .what small {{ overflow-wrap: anywhere; }}
.layers .what {{ width: 30%; }}
.layers .bar {{ width: 28%; }}
.layers .dots {{ width: 22%; }}
.layers svg {{ height: 16px; max-width: none; }}
pre {{ background: var(--ground); border: 1px solid var(--line); border-radius: 6px; padding: 10px 12px; margin: 0;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px; }}
summary {{ cursor: pointer; color: var(--muted); padding: 6px 0; }}
dl {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); gap: 2px 24px; margin: 6px 0 0;
  font-size: 13px; }}
dl div {{ display: flex; justify-content: space-between; gap: 12px; border-bottom: 1px solid var(--line); }}
dt {{ color: var(--muted); }}
dd {{ margin: 0; text-align: right; overflow-wrap: anywhere; }}
footer {{ color: var(--muted); font-size: 13px; }}
@media (max-width: 640px) {{
  main {{ padding: 18px 12px 40px; }}
  section {{ padding: 14px; }}
  .tiles {{ grid-template-columns: 1fr 1fr; gap: 8px; }}
  .tile {{ padding: 10px 12px; }}
  .tile b {{ font-size: 22px; }}
  th, td {{ padding: 6px; }}
  .layers thead {{ display: none; }}
  .layers tr {{ display: grid; grid-template-columns: 1fr auto; border-top: 1px solid var(--line); padding: 6px 0; }}
  .layers td, .layers td:first-child {{ border: 0; padding: 1px 0; width: auto; }}
  .layers .what {{ width: auto; }}
  .layers .bar {{ grid-column: 1 / -1; order: 1; width: 100%; }}
  .layers .dots, .layers .errors {{ order: 2; width: auto; }}
}}
@media print {{ body {{ background: none; }} section {{ break-inside: avoid; }} }}
"""
