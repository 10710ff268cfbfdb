"""Train and test the models of results/camvid.md: python tools/reproduce_camvid.py [ROW ...] [--data DIR] ..."""

import argparse
import os
from pathlib import Path

from mmseg_ext.results import ROWS, Settings, check_report, measure_row, run_rows, select_rows, write_report


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description='Train and test the models of the CamVid table and write it. What was interrupted goes on; what is '
        'done is not done again.'
    )
    parser.add_argument('rows', nargs='*', metavar='ROW', help='names of rows (default: all)')
    parser.add_argument('--list', action='store_true', help='print the rows and leave')
    parser.add_argument('--data', type=Path, default=Path('data/camvid'), help='CamVid in the SegNet layout')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/camvid'), help='where the rows are trained')
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/camvid/camvid.md'),
        help='the report; the text above its table is kept, and so are rows of other machines (the .json beside it)',
    )
    parser.add_argument('--iterations', type=int, help="length of the schedule (default: the config's)")
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--jobs', type=int, default=1, help='rows that run at the same time, on a CPU with many cores')
    parser.add_argument('--threads', type=int, help='processor threads of a row (default: all, divided by --jobs)')
    parser.add_argument('--report-only', action='store_true', help='write the report of these rows from what is there')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='config values to replace')
    args = parser.parse_args(argv)
    if args.list:
        for row in ROWS:
            print(f'{row.name:24} {row.title}')
        return
    rows = select_rows(args.rows)
    check_report(args.out)
    if not args.report_only:
        missing = [name for name in ('train', 'trainannot', 'val', 'valannot') if not (args.data / name).is_dir()]
        if missing:
            raise SystemExit(f'--data {args.data} holds no {", ".join(missing)}; see "Data" in README.md')
        if args.jobs < 1:
            raise SystemExit(f'--jobs {args.jobs} must be 1 or more')
        threads = args.threads or max(1, os.cpu_count() // args.jobs)
        settings = Settings(
            args.data, args.work_dir.absolute(), args.iterations, args.seed, threads, tuple(args.cfg_options)
        )
        run_rows(rows, settings, args.jobs)
        for row in rows:
            measure_row(row, settings)
    # What other calls have trained belongs to the table, too.
    write_report(rows if args.report_only else ROWS, args.work_dir, args.out)
    print(args.out)


if __name__ == '__main__':
    main()
