"""The commands about files: `data` (public sets) and `cache` (what is kept on disk)."""

from __future__ import annotations

import argparse

from lwap.cli.shared import (
    print_json,
    show_progress,
)


def cache_show(options: argparse.Namespace) -> None:
    from lwap.encoding.diskcache import DiskCache

    cache = DiskCache()
    usage = cache.usage()
    if options.json:
        print_json(
            {
                "folder": str(cache.folder),
                "limit_bytes": cache.limit_bytes,
                "kinds": [vars(entry) for entry in usage],
            }
        )
        return
    total = sum(entry.bytes for entry in usage)
    print(f"{cache.folder}: {total / 1e9:.2f} of {cache.limit_bytes / 1e9:g} GB")
    for entry in usage:
        print(f"  {entry.kind:<10}{entry.entries:>8} entries{entry.bytes / 1e6:>12.1f} MB")
    print("LWAP_CACHE names another folder, LWAP_CACHE_GB another limit.")


def cache_prune(options: argparse.Namespace) -> None:
    from lwap.encoding.diskcache import DiskCache, checked_gigabytes

    limit = None if options.limit is None else checked_gigabytes(options.limit)
    _say_removed(options, DiskCache().prune(limit))


def cache_clear(options: argparse.Namespace) -> None:
    from lwap.encoding.diskcache import DiskCache

    _say_removed(options, DiskCache().prune(0))


def _say_removed(options: argparse.Namespace, removed: int) -> None:
    if options.json:
        print_json({"removed_bytes": removed})
    else:
        print(f"Removed {removed / 1e6:.1f} MB.")


def data_list(options: argparse.Namespace) -> None:
    from lwap.datasets.download import verify_sources
    from lwap.datasets.public import PUBLIC_SETS
    from lwap.datasets.readers import data_folder
    from lwap.datasets.tasks import STS_TASKS, available_tasks

    folder = options.folder or data_folder()
    there = available_tasks(folder)
    if options.json:
        print_json(
            {
                "folder": str(folder),
                "sts": there,
                "sources": verify_sources(folder),
                "sets": [
                    {
                        "name": entry.name,
                        "about": entry.about,
                        "hub_ids": sorted({file.hub_id for file in entry.files}),
                        "licences": sorted({file.licence for file in entry.files}),
                    }
                    for entry in PUBLIC_SETS
                ],
            }
        )
        return
    print(f"In {folder}:")
    for task in STS_TASKS:
        print(f"  {task.key:<10}{task.title:<14}{'there' if task.key in there else 'not there'}")
    for line in verify_sources(folder):
        print(f"  {line}")
    print("\nTo download (python -m lwap data download NAME):")
    for entry in PUBLIC_SETS:
        licences = ", ".join(sorted({file.licence for file in entry.files}))
        print(f"  {entry.name:<16}{entry.about}  [{licences}]")


def data_download(options: argparse.Namespace) -> None:
    from lwap.datasets.download import download
    from lwap.datasets.readers import data_folder

    folder = options.folder or data_folder()
    with show_progress("files", options) as progress:
        files = download(
            options.name,
            folder,
            revision=options.revision,
            overwrite=options.overwrite,
            progress=progress,
        )
    if options.json:
        print_json({"files": [str(file) for file in files]})
        return
    for file in files:
        print(f"Written: {file}")
