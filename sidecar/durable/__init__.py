"""What outlives the process: logs of records on disk, and the two that are kept in them.

disk        the file operations there are, so that a test can put in a disk that fails
writer      the one thread that writes and the one that syncs, for all logs of a process
recovery    what a folder holds when a log is opened
log         records appended, written, synced; full disks outlived
journal     the events of a run, on a log
receipts    what became of each call, on another
"""
