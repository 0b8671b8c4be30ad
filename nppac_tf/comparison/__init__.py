"""Methods compared from the folders of their runs: learning curves, scores with intervals, a page.

Nothing here sees a model, and an archived run (its config.json and metrics.csv, of this version or
an older one) is as good as a whole one.
"""
