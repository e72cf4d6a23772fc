"""The report's page. Jinja escapes every value; pictures come as SVG made here and are marked safe by the caller."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ name }}: report</title>
<style>
:root {
  --ink: #1f2933; --muted: #66727f; --line: #e3e8ee; --paper: #ffffff; --wash: #f6f8fa; --accent: #2f5fd0; --better: #1f8a5b;
  --worse: #c2413a;
  --sans: -apple-system, BlinkMacSystemFont, "Segoe UI", "Noto Sans", "Liberation Sans", Roboto, "Helvetica Neue", Arial, sans-serif;
  --mono: ui-monospace, SFMono-Regular, "SF Mono", Menlo, Consolas, "Noto Sans Mono", "DejaVu Sans Mono", monospace;
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 4rem; }
body { margin: 0; background: var(--wash); color: var(--ink); font: 16px/1.6 var(--sans); font-feature-settings: "tnum" 1; }
header, main, footer { max-width: 76rem; margin: 0 auto; padding: 0 1.5rem; }
header { padding-top: 3rem; padding-bottom: .5rem; }
h1 { font-size: 2.1rem; line-height: 1.2; letter-spacing: -.02em; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; letter-spacing: -.01em; margin: 0 0 .3rem; }
h3 { font-size: 1rem; margin: 1.8rem 0 .4rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; }
.lead { color: var(--muted); font-size: 1.08rem; }
.small { color: var(--muted); font-size: .875rem; }
td .small { font-size: .8rem; line-height: 1.35; font-weight: 400; }
nav { position: sticky; top: 0; z-index: 9; background: rgba(246, 248, 250, .95); border-bottom: 1px solid var(--line); }
nav div { max-width: 76rem; margin: 0 auto; padding: .55rem 1.5rem; display: flex; gap: 1.3rem; overflow-x: auto; white-space: nowrap; }
nav a { color: var(--muted); text-decoration: none; font-size: .9rem; }
nav a:hover, nav a:focus { color: var(--accent); }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 12px; padding: 1.6rem 1.7rem 1.4rem; margin: 1.3rem 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(11.5rem, 1fr)); gap: .8rem; margin: 1.4rem 0 1.6rem; }
.figure { background: var(--paper); border: 1px solid var(--line); border-radius: 12px; padding: .95rem 1.1rem; }
.figure b { display: block; font-size: 1.7rem; line-height: 1.2; letter-spacing: -.02em; font-weight: 650; }
.figure span { color: var(--muted); font-size: .85rem; }
.wide { overflow-x: auto; margin: .9rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { padding: .42rem .7rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--muted); font-weight: 600; font-size: .82rem; white-space: nowrap; border-bottom: 2px solid var(--line); }
.within { display: inline-block; color: var(--muted); font-size: .82em; }
td.n:has(.within) { white-space: normal; }
td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
tbody tr:last-child td { border-bottom: 0; }
tbody tr:hover td { background: #fafbfd; }
tr.total td { border-top: 2px solid var(--line); font-weight: 650; }
td.best { font-weight: 650; }
.up { color: var(--better); font-weight: 600; }
.down { color: var(--worse); font-weight: 600; }
.verdict { border-left: 4px solid var(--better); background: #f2f9f5; padding: .7rem 1rem; border-radius: 0 8px 8px 0; margin: 1rem 0;
  max-width: none; }
.verdict.bad { border-color: var(--worse); background: #fdf4f3; }
.tag { display: inline-block; border-radius: 99px; padding: .05rem .6rem; font-size: .78rem; background: var(--wash);
  border: 1px solid var(--line); color: var(--muted);
  white-space: nowrap; }
.tag.kept { color: var(--better); border-color: #bfe3d2; background: #f2f9f5; }
code { font: .85em/1.5 var(--mono); overflow-wrap: anywhere; }
td code { white-space: nowrap; }
table.few { width: auto; min-width: min(100%, 26rem); }
figure { margin: 1.1rem 0 .4rem; overflow-x: auto; }
figure svg { display: block; width: 100%; min-width: 40rem; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { color: var(--muted); font-size: .85rem; margin-top: .2rem; }
blockquote { margin: 0; }
.sample td:first-child { width: 45%; }
dl.pairs { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; font-size: .92rem; margin: .8rem 0; }
dl.pairs dt { color: var(--muted); } dl.pairs dd { margin: 0; overflow-wrap: anywhere; }
footer { padding-bottom: 3rem; color: var(--muted); font-size: .85rem; }
@media (max-width: 40rem) { header { padding-top: 1.6rem; } section { padding: 1.1rem 1rem; } h1 { font-size: 1.6rem;
  } header, main, footer { padding-left: .8rem; padding-right: .8rem; } }
@media print { nav { display: none; } body { background: #fff; } section { break-inside: avoid; border: 0; padding: 0; } figure svg {
  min-width: 0; } }
</style>
</head>
<body>
{%- macro cell(value) -%}
{%- if value is none -%}{%- elif value is number -%}{{ "{:,.2f}".format(value) if value is float else "{:,}".format(value) }}
{%- else -%}{{ value }}{%- endif -%}
{%- endmacro -%}
{%- macro table(given) -%}
<div class="wide"><table{% if given.head|length < 5 %} class="few"{% endif %}>
<thead><tr>{% for head in given.head %}<th{% if loop.index0 in given.numbers %} class="n"{% endif %}>{{ head }}</th>
{% endfor %}</tr></thead>
<tbody>
{%- for row in given.rows %}
<tr>{% for value in row %}<td{% if loop.index0 in given.numbers %} class="n"{% endif %}>
{%- if loop.index0 in given.codes %}<code>{{ cell(value) }}</code>{% else %}{{ cell(value) }}{% endif %}</td>{% endfor %}</tr>
{%- endfor %}
{%- if given.total %}
<tr class="total">{% for value in given.total %}<td{% if loop.index0 in given.numbers %} class="n"{% endif %}>{{ cell(value) }}</td>
{% endfor %}</tr>
{%- endif %}
</tbody></table></div>
{%- endmacro -%}
{%- macro moved(change) -%}
{%- if change %}{% set side = 'up' if change.value > 0 else 'down' -%}
<span class="{{ side if change.clear else 'small' }}">{{ change|changed }}</span>{% endif -%}
{%- endmacro -%}
{%- macro score(estimate) -%}
{%- if estimate %}{% set parts = (estimate|scored).split(" ", 1) %}{{ parts[0] }}
{%- if parts[1:] %} <span class="within">{{ parts[1] }}</span>{% endif %}{% endif -%}
{%- endmacro -%}
{%- macro picture(svg, caption) -%}
{%- if svg %}<figure>{{ svg }}{% if caption %}<figcaption>{{ caption }}</figcaption>{% endif %}</figure>{% endif -%}
{%- endmacro %}
{%- macro told(parts) -%}
{%- for part in parts %}
<h3>{{ part.title }}{% if part.kind %} <span class="tag">{{ part.kind }}</span>{% endif %}</h3>
{%- if part.text %}
<p class="small">{{ part.text }}</p>
{%- endif %}
{{ picture(part.picture, part.caption) }}
{%- if part.table %}{{ table(part.table) }}{% endif %}
{%- if part.samples %}
<div class="wide"><table class="sample"><thead><tr><th>passage</th><th>kind</th><th>written</th><th></th></tr></thead><tbody>
{%- for sample in part.samples %}
<tr><td>{{ sample.passage }}</td><td>{{ sample.kind }}</td><td>{{ sample.output }}</td>
<td><span class="tag{{ ' kept' if not sample.reason }}">{{ sample.reason or "kept" }}</span></td></tr>
{%- endfor %}
</tbody></table></div>{% endif %}
{%- endfor %}
{%- endmacro %}
<header>
<h1>{{ name }}</h1>
<p class="lead">{{ description }}</p>
<div class="figures">
{%- for figure in figures %}
<div class="figure"><b>{{ figure.value }}</b><span>{{ figure.label }}</span></div>
{%- endfor %}
</div>
</header>
<nav aria-label="sections"><div>{% for section in contents %}<a href="#{{ section.id }}">{{ section.title }}</a>{% endfor %}</div></nav>
<main>
{%- if tables %}
<section id="scores">
<h2>Scores</h2>
{%- for sentence in verdict %}
<p class="verdict{{ ' bad' if sentence.bad }}">{{ sentence.text }}</p>
{%- endfor %}
<p>Main score of each task x 100 on its test half, which nothing before these tables has read; each model with its own prefixes. The change
is the final model, <code>{{ scores.final }}</code>, minus the base model, <code>{{ scores.base }}</code>. Intervals hold 95 % of 1,000
bootstrap draws over queries, pairs or texts; a change is called one where that of the paired draws leaves out 0.</p>
{%- for each in tables %}
<h3>{{ each.title }}</h3>
<p class="small">{{ each.about }}</p>
<div class="wide"><table>
<thead><tr><th>task</th><th class="n">change</th>
{%- for model in scores.models %}<th class="n">{{ model }}</th>{% endfor %}</tr></thead>
<tbody>
{%- for row in each.rows %}
<tr><td>{{ row.task }}
<div class="small">{{ row.type }}, {{ row.metric }}{% if row.scored %}, {{ cell(row.scored) }} items{% endif %}</div></td>
<td class="n">{{ moved(row.change) }}</td>
{%- for model in scores.models %}<td class="n{{ ' best' if row.scores[model] and row.scores[model].value == each.best[row.task] }}">
{{- score(row.scores[model]) }}</td>
{% endfor %}</tr>
{%- endfor %}
<tr class="total"><td>mean of {{ each.title|lower }}</td><td class="n">{{ moved(each.change) }}</td>
{%- for model in scores.models %}<td class="n">{{ score(each.means[model]) }}</td>{% endfor %}</tr>
</tbody></table></div>
{{ picture(each.changes, "Hollow: the base model. Filled: the final model. Grey: no clear change.") }}
{{ picture(each.drawn, "Mean over the " + each.title|lower + " of each model.") }}
{%- endfor %}
{%- if steps %}
<h3>What each step gave or cost</h3>
<p class="small">Each model against the one that it was made from, of a merge the first of those merged: change of the mean.</p>
{{ table(steps) }}{% endif %}
{%- if tasks %}<h3>What the tasks are made of</h3>{{ told(tasks) }}{% endif %}
</section>
{%- endif %}
{%- for group in groups %}
<section id="{{ group.id }}">
<h2>{{ group.title }}</h2>
{{ told(group.parts) }}
</section>
{%- endfor %}
<section id="timeline">
<h2>Timeline</h2>
<p>{{ beside }}</p>
{{ picture(pictures.timeline, "Dotted lines: pauses that are not drawn, after what an earlier run made." if paused else "") }}
</section>
<section id="lineage">
<h2>Lineage</h2>
<p>Every node is one artifact, named by a fingerprint of its settings, its code's version, its inputs and the seed.
The same fingerprint is the same result, and a later run reuses it.</p>
{{ picture(pictures.graph, "What is made from what; an edge that a longer path says already is not drawn.") }}
{%- if models %}{{ table(models) }}{% endif %}
{{ table(lineage) }}
<dl class="pairs">{% for key, value in facts %}<dt>{{ key }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
</section>
</main>
<footer>{{ foot }}</footer>
</body>
</html>
"""
