"""Where and how a recipe runs, and where its figures are kept.

::

    device       which device, which arithmetic, how many threads; every seed
    provenance   where a result comes from: commit, versions, machine, command
    progress     bars on a terminal, timed lines elsewhere
    signals      what signals end in order, and what must be whole before they do
    address      where runs are kept: which store the environment names
    store        that store, opened; the traps of keeping runs
    view         how MLflow's pages show experiments of ours
    events       what a run says, written to its store
    outbox       what a run says, kept here until a store that may be away has it
    search       what a store knows of runs, read from its file or asked of MLflow
    runs         finding runs: listing, naming one by a word, telling the dead from the living
    artifacts    a run's files: listed, brought here
    bin          runs that are deleted, and what is removed for good
    family       a sweep's runs that many machines make: one parent, its table
    transfer     runs that move: export, import, a store that was moved
    tracker      one run, from its start to its end, through crashes
    writing      what it says while it is done

`store`, `search`, `bin`, `events` and `writing` are the only code that knows MLflow.
They import it when they first need it, which who only reads a sqlite file does not. Nothing is
imported here, so that a command that only needs `progress` pays for nothing else.
"""
