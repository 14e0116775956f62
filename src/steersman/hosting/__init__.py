"""The folder of a rank as whoever starts it sees it: claim, order, shim, end; and what it says of the rank.

Used by the drivers that keep ranks on this machine and by what hosts them on others. `claim`, `files`,
`folders` and `errors` are shipped to machines where only the standard library is sure to be; the others read
what such a machine sent back, and give reports.

Never in here: a decision, a connection, a signal to a program (the shim alone knows what is its own), and a
secret in any file.
"""
