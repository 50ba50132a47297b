"""The port report: values, then text, Markdown, HTML and JSON."""
