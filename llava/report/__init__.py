"""Self-contained HTML reports: what a stage shows in the Kubeflow UI, or a person opens from disk.

`Report` collects parts and writes one file: no network, readable in a sandboxed frame, light and dark. Only an explorer
of many samples brings a script, inline; everything else is there without it.
"""

from llava.report.charts import Bar
from llava.report.explorer import Answer, Sample, thumbnail
from llava.report.gallery import Box, Card
from llava.report.page import Report

__all__ = ["Answer", "Bar", "Box", "Card", "Report", "Sample", "thumbnail"]
