"""The verbs, thin: parse, call, print. Each verb imports what it needs inside its own function, so that
`groundup --help` answers at once. `parsers` lists them, `main` is the way in and the outermost edge.
"""
