"""The page of `genstack web`: sample, edit and compare in the browser, and follow a training.

Each picture is made by a `Job`, which is one command with its settings: `samples.py`, `interpolation.py` and
`decoding.py`. `tabs/` holds the tabs, whose widgets choose the settings. Only the tabs, `controls.py` and
`page.py` know Gradio, and import it when the page is built.
"""
