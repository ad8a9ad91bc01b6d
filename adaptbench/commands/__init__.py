"""What the commands do; `adaptbench.cli` parses their words. Heavy modules are imported where they are used."""
