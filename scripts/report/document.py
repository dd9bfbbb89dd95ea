# SPDX-License-Identifier: MIT
"""An HTML page that needs nothing else, out of sections, panels and figures.

Words go through `escape`; bodies and captions are HTML of our own.
"""

from html import escape
from pathlib import Path

STYLE = Path(__file__).with_name("style.css")


def section(name, heading, body):
    return f'<section id="{name}">\n<h2>{escape(heading)}</h2>\n{body}\n</section>' if body else ""


def folded(words, body):
    return f"<details><summary>{escape(words)}</summary>\n{body}\n</details>"


def panel(drawn):
    keys = "".join(f"<li>{key.svg()}{escape(key.words)}</li>" for key in drawn.keys)
    legend = f"<ul>{keys}</ul>" if keys else ""
    return f'<div class="panel"><h3>{escape(drawn.title)}</h3>\n{drawn.picture}\n{legend}</div>'


def panels(drawn):
    return f'<div class="panels{" one" if len(drawn) == 1 else ""}">\n' + "\n".join(map(panel, drawn)) + "\n</div>"


def figure(drawn):
    """The caption of a Figure is our own HTML."""
    body = panels(drawn.panels) if drawn.panels else ""
    more = folded(f"The other variants ({len(drawn.folded)} panels)", panels(drawn.folded)) if drawn.folded else ""
    return section(
        drawn.name, drawn.heading, f"<figure>\n{body}\n<figcaption>{drawn.caption}</figcaption>\n{more}</figure>"
    )


def page(headline, lead, sections):
    """The whole page, from (name, heading in the navigation, HTML); empty sections are left out."""
    present = [entry for entry in sections if entry[2]]
    links = " ".join(f'<a href="#{name}">{escape(heading)}</a>' for name, heading, _ in present)
    body = "\n\n".join(text for _, _, text in present)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(headline)}</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
<h1>{escape(headline)}</h1>
<p class="lead">{escape(lead)}</p>
<nav>{links}</nav>

{body}
</main>
</body>
</html>
"""
