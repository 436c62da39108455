"""The limits table: every default bound, its unit, its owner, and what happens at it.

Bytes and seconds unless the name says otherwise. What happens at a limit is one of

    reject      the one who asked gets an error (`limit`, or the code named)
    close       the attachment or stream ends
    truncate    a part is left out, and what was left out is counted and told
    shed        the oldest goes, and that it is gone is told when it is asked for
    hold back   the sender waits until there is room

A constant has one home. The windows of attachments are in `window`, the sizes of hub messages
and envelopes in `webpubsub.frames` and `envelope`; everything else that a user may feel is here.
"""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

HOUR = 3600.0  # seconds

# Journal ---------------------------------------------------------------------------------

EVENT_BYTES = 64 * KIB  # one encoded event; journal: reject
JOURNAL_BYTES = 256 * MIB  # events kept on disk; journal: shed, a reader behind gets a gap
JOURNAL_EVENTS = 1_000_000  # events kept; journal: shed, as above
TAIL_BYTES = 4 * MIB  # the latest events, also in memory; journal: older ones are read from disk
SEGMENT_BYTES = 8 * MIB  # one file of a log; log: begins another
MEMORY_JOURNAL_BYTES = 16 * MIB  # events that the disk will not take; journal: shed, a gap
MEMORY_JOURNAL_EVENTS = 100_000  # events kept in memory; journal: shed, as above
READERS = 16  # open readers, and apart from them durable names; journal: reject

# Receipts --------------------------------------------------------------------------------

RECEIPTS = 16_384  # calls remembered; receipts: shed the ended ones, then `expired_id`
RECEIPT_TIME = 24 * HOUR  # how long an ended call is remembered; receipts: shed, as above
OPEN_CALLS = 256  # calls not ended, or with streams that nobody took yet; dispatch: reject
ANSWER_BYTES = 64 * KIB  # one answer; dispatch: a larger one is streamed, then `answer_gone`
MEMORY_ANSWERS_BYTES = 16 * MIB  # stored answers in memory; receipts: shed, `answer_gone`
ANSWERS_BYTES = 64 * MIB  # stored answers on disk; receipts: shed, `answer_gone`
RECEIPT_SEGMENT_BYTES = 2 * MIB  # one file of the log of receipts; log: begins another
NOTE_BYTES = 4 * KIB  # what a command needs to be taken up after a restart; receipts: reject

# Spool -----------------------------------------------------------------------------------

SPOOL_HEAD_BYTES = 4 * MIB  # the first output of a program, kept to the end; spool: truncate
SPOOL_TAIL_BYTES = 12 * MIB  # its latest output; spool: hold back, then as `on_full` says
SPOOL_MEMORY_BYTES = 64 * KIB  # the part of the head that memory has, too; spool: disk only
SPOOL_FLOOR_BYTES = 64 * KIB  # a tail that each spool has even if the total is used up
SPOOLS_BYTES = 1 * GIB  # all spools of a process; spool: truncate, tails stay as they are
SPOOL_RANGES = 64  # separate kept pieces after disk errors; spool: truncate, the oldest goes
SPOOL_GAPS = 64  # places where a killed sidecar lost bytes; spool: the last stands for the rest
PROGRAMS_KEPT = 128  # ended programs that can be asked about; processes: shed, `not_found`
PROGRAM_SLOTS = 2048  # programs that can be taken up after a restart; register: others cannot
DRAINED_PIPES = 64  # of forgotten programs whose children print on; processes: close the oldest
HOLD_TIME = 30.0  # a full spool waits for a silent owner; spool: then as `on_full` says

# Files and digests -----------------------------------------------------------------------

READ_BYTES = 1 * MIB  # one read of a file or spool; reader: truncate, the rest comes next
UNSIZED_BYTES = 4 * MIB  # a file that does not say its size, as in /proc; files.read: reject
SEARCH_BYTES = 4 * MIB  # of paths and lines that files.search answers; truncate, and say so
EDIT_BYTES = 16 * MIB  # a file that files.edit takes, and what comes out of it: reject
DIGEST_CHUNKS = 8  # chunks waiting for the hashing thread; digest: hold back
DIGEST_JOB_BYTES = 1 * MIB  # gathered for one job of that thread (half the chunks, if fewer)
DIGEST_INLINE_BYTES = 4 * KIB  # hashed on the spot: a hop to the thread costs more (8 us)

# Uploads ---------------------------------------------------------------------------------

UPLOADS = 1024  # ids whose parts may lie somewhere; files.write: reject
UPLOAD_TIME = 24 * HOUR  # a part that nobody writes to; uploads: removed
UPLOAD_SWEEP = 1 * HOUR  # between looks at them
UPLOAD_MEMORY = 7 * 24 * HOUR  # of a part that cannot be looked at; uploads: forgotten
TAKEOVER_TIME = 30.0  # for an older call to let go of an upload; files.write: `conflict`

# Streams ---------------------------------------------------------------------------------

STREAM_CREDIT = 1 * MIB  # what a stream may send before its receiver grants more; streams: hold
STREAMS = 256  # incoming streams of a process, but for those a command waits for; dispatch: close
CALL_STREAMS = 8  # incoming streams of one call; dispatch: close
CONTENT_WAIT = 600.0  # without a byte of a file that is being written; files.write: `timeout`
STREAM_WAIT = 600.0  # the streams of an ended call wait for somebody to ask; dispatch: close

# Attachments -----------------------------------------------------------------------------

ATTACHMENTS = 30  # so many of `window.SLACK` stay below 16 MB; attach: reject
ATTACHMENT_SILENCE = 90.0  # without any message; attach: close
WATCH_PART = 2  # one in so many attachments, readers, calls is all that watchers get: reject
ATTACH_ANSWERS = 20.0  # answers to `attach` a second, of either scope; strangers: not answered
ATTACH_BURST = 60  # of them saved up while quiet

# Calls -----------------------------------------------------------------------------------

ARGUMENTS_BYTES = 256 * KIB  # of one call, as every window has room for; client, dispatch: reject
ACCEPT_TIME = 60.0  # from the first sending of a call; client: `not_accepted`, with a fence

# Rates -----------------------------------------------------------------------------------

RATE_MESSAGES = 40.0  # hub messages a second, sustained; channel: hold back, urgent overdraws
RATE_BYTES = 2_000_000.0  # bytes a second, sustained; channel: hold back, urgent overdraws
BURST_MESSAGES = 400  # saved up while quiet; channel
BURST_BYTES = 8_000_000  # saved up while quiet; channel
