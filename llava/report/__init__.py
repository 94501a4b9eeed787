"""Self-contained HTML reports: what a stage shows in the Kubeflow UI, or a person opens from disk.

`Report` collects parts and writes one file: no network, no script, readable in a sandboxed frame, light and dark.
"""

from llava.report.charts import Bar
from llava.report.gallery import Box, Card
from llava.report.page import Report

__all__ = ["Bar", "Box", "Card", "Report"]
