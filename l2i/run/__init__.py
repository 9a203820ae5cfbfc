"""Where and how a recipe runs, and where its figures are kept.

::

    device       which device, which arithmetic, how many threads; every seed
    provenance   where a result comes from: commit, versions, machine, command
    progress     bars on a terminal, timed lines elsewhere
    lock         which runs are alive
    signals      what must be whole before a signal ends it
    store        where runs are kept, and the traps of keeping them
    outbox       what a run says, kept here until a store that may be away has it
    runs         reading: listing, finding by a word, fetching artifacts
    family       a sweep's runs that many machines make: one parent, its table
    transfer     runs that move: export, import, a store that was moved
    tracker      writing: one run, from its start to its end, through crashes

`store`, `outbox`, `runs` and `tracker` are the only code that knows MLflow, and import it when they
first touch a store. Nothing is imported here, so that a command that only needs `progress`
pays for nothing else.
"""
