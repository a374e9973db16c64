"""Parts of a page, before they are laid out: cards of text, tables and figures; what their columns are called."""
