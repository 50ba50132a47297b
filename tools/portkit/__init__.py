"""The library behind `tools/`: carrying a patch series on a fast-moving upstream.

Layers, each importing only from those above it: words (`model`, `errors`), files (`patchfile`,
`series`, `pin`, `tree`, `git`, `upstream`), decisions (`apply` … `upstreamed`), work (`rebase`,
`journal`), face (`report`, `console`).  See docs/architecture.md.
"""
