"""The attendant: the one process beside the containers, while there is something to attend to.

It answers names on user-defined networks, and relays what comes to published ports on
the IPv6 loopback address, which no rule can redirect. It comes with the first container
that needs one of these and ends with the last. It decides nothing and keeps nothing:
what it tells it reads from mydocker's state for each question anew, so that it can be
killed at any time. The next call of mydocker's starts another.

`client` is mydocker's side, `process` the attendant itself.
"""
