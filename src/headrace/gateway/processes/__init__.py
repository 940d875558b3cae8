"""Several processes of one gateway behind one port.

::

    clients ─► port (SO_REUSEPORT) ─► process-0 ─┐
                                  ├─► process-1 ─┼─ sockets ─► parent: replicas, administration, sums; no requests
                                  └─► process-2 ─┘

The parent knows which replicas there are and tells every process; administration and metrics are answered by the
parent, whoever is asked. What a process sends to a replica is told to the others, so that each knows where a prefix is
cached. Breakers, retry budgets, patience and health checks are each process's own: a replica in trouble is found by
each of them, after `failure_threshold` failures of its own.
"""
