"""The commands of `tools/`, one module per script: arguments in, text or JSON out.

Only these modules, `console` and the scripts print.
"""
