"""The report's style sheet."""

# ruff: noqa: E501 - one rule per line reads better than rules broken in two

CSS = """
:root { color-scheme: light; --ink: #22272e; --soft: #636c78; --line: #e3e6ea; --blue: #2b6cb0; }
* { box-sizing: border-box; }
body { margin: 0; background: #f6f7f9; color: var(--ink); font: 15px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 920px; margin: 0 auto; padding: 32px 20px 64px; }
header { margin-bottom: 8px; }
h1 { font-size: 30px; margin: 0; letter-spacing: -.01em; }
h1 span { color: var(--soft); font-weight: 400; font-size: 18px; }
header p { margin: 2px 0; color: var(--soft); }
.kind { text-transform: uppercase; letter-spacing: .08em; font-size: 12px; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 18px; }
.tile { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; min-width: 150px; flex: 1; }
.tile b { display: block; font-size: 26px; font-variant-numeric: tabular-nums; }
.tile span { display: block; }
.tile small { color: var(--soft); }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 6px 22px 18px; margin-top: 18px; }
h2 { font-size: 17px; margin: 12px 0 10px; }
svg { display: block; max-width: 100%; height: auto; margin: 6px auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; margin-bottom: 8px; }
th, td { text-align: right; padding: 6px 10px; border-bottom: 1px solid var(--line); font-weight: 400; }
thead th { color: var(--soft); font-size: 13px; }
th:first-child { text-align: left; }
td small { display: block; color: var(--soft); font-size: 11.5px; line-height: 1.2; }
tr.prm th, tr.prm td { font-weight: 600; color: var(--blue); }
tr.prm td small { font-weight: 400; }
table.figures td:nth-child(2) { text-align: left; }
table.figures th { color: var(--soft); width: 90px; }
.note { color: var(--soft); font-size: 13px; margin: 6px 0 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 14px; }
article { border: 1px solid var(--line); border-radius: 8px; padding: 12px; min-width: 0; }
article .top { display: flex; gap: 12px; align-items: center; }
article img { width: 76px; height: 76px; object-fit: contain; border-radius: 4px; image-rendering: pixelated; background: #f0f1f3; }
article strong { display: block; font-size: 19px; line-height: 1.2; font-variant-numeric: tabular-nums; }
article .top span { color: var(--soft); font-size: 13px; display: block; }
article p { margin: 8px 0; font-size: 13.5px; white-space: pre-wrap; overflow-wrap: anywhere; }
article ol { list-style: none; margin: 0; padding: 0; font-size: 13px; }
article li { display: flex; gap: 8px; padding: 3px 0; border-top: 1px solid var(--line); align-items: baseline; }
article li span { flex: 1; overflow-wrap: anywhere; min-width: 0; }
article li i { font-style: normal; font-weight: 700; width: 1em; text-align: center; }
article li b { font-weight: 500; color: var(--soft); font-variant-numeric: tabular-nums; }
i.plus { color: #2f8f63; } i.minus { color: #c0453c; }
em { font-style: normal; font-size: 11.5px; border-radius: 9px; padding: 1px 8px; }
em.good { background: #e3f3ea; color: #216e4b; } em.bad { background: #fae6e4; color: #9c332b; }
pre { font-size: 12.5px; overflow-x: auto; }
summary { cursor: pointer; color: var(--soft); }
@media print { body { background: #fff; } section { break-inside: avoid; } }
"""
