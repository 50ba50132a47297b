"""vLLM's OpenAI server on an engine in the same process: `python -m launcher --model MODEL`.

Needs only itself and an installed vLLM, 0.14.1 or newer, patched or not.
"""
