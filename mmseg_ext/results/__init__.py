"""Train and test the models of a table, and write the table."""

from .report import check_report, write_report
from .rows import ROWS, Row, select_rows
from .runs import Settings, measure_row, run_rows

__all__ = ['ROWS', 'Row', 'Settings', 'check_report', 'measure_row', 'run_rows', 'select_rows', 'write_report']
