"""The report's figures: inline SVG in the colours of the page, each with its table and a text alternative."""
