"""A small GraphQL executor: parses one operation and reads its selection from nested dicts."""

import json
import re

TOKEN = re.compile(r'\s+|,|#[^\n]*|(\.\.\.|[{}()\[\]:$!=@|&]|"(?:\\.|[^"\\])*"|[\w.+-]+)')


class Parser:
    def __init__(self, text):
        self.toks = [t for t in TOKEN.findall(text) if t] + [None]
        self.i = 0

    def next(self):
        self.i += 1
        return self.toks[self.i - 1]

    def take(self, *toks):
        if self.toks[self.i] in toks:
            return self.next()

    def document(self):
        """(kind, name, defaults, selection) of the first operation, and the fragments."""
        operation, fragments = None, {}
        while self.toks[self.i] is not None:
            if self.take("fragment"):
                name, _, _ = self.next(), self.next(), self.next()  # NAME on TYPE
                fragments[name] = self.selection()
                continue
            kind = self.take("query", "mutation") or "query"
            name = self.next() if self.toks[self.i] not in ("{", "(") else ""
            defaults = self.defaults() if self.take("(") else {}
            operation = operation or (kind, name, defaults, self.selection())
        return operation, fragments

    def defaults(self):
        out = {}
        while not self.take(")"):
            self.take("$")
            var = self.next()
            while self.toks[self.i] not in ("=", "$", ")"):
                self.next()  # the type
            if self.take("="):
                out[var] = self.value()
        return out

    def value(self):
        tok = self.next()
        if tok == "$":
            return ("$", self.next())
        if tok == "[":
            out = []
            while not self.take("]"):
                out.append(self.value())
            return out
        if tok == "{":
            return self.pairs("}")
        try:
            return json.loads(tok)
        except ValueError:
            return tok  # an enum

    def pairs(self, end):
        out = {}
        while not self.take(end):
            key, _ = self.next(), self.next()
            out[key] = self.value()
        return out

    def selection(self):
        """A list of (key, name, arguments, conditions, selection) and ("...", fragment)."""
        out = []
        self.take("{")
        while not self.take("}"):
            if self.take("..."):
                if self.take("on"):
                    self.next()
                out.append(("...", self.selection() if self.toks[self.i] == "{" else self.next()))
                continue
            key = name = self.next()
            if self.take(":"):
                name = self.next()
            args = self.pairs(")") if self.take("(") else {}
            conditions = []
            while self.take("@"):
                conditions.append((self.next(), self.pairs(")") if self.take("(") else {}))
            out.append((key, name, args, conditions, self.selection() if self.toks[self.i] == "{" else None))
        return out


def bind(value, variables):
    if isinstance(value, tuple):
        return variables.get(value[1])
    if isinstance(value, list):
        return [bind(v, variables) for v in value]
    if isinstance(value, dict):
        return {k: bind(v, variables) for k, v in value.items()}
    return value


def select(obj, selection, variables, fragments):
    """Apply `selection` to a nested dict; callables get their arguments, a missing field is null."""
    if obj is None or selection is None:
        return obj
    if isinstance(obj, list):
        return [select(o, selection, variables, fragments) for o in obj]
    out = {}
    for item in selection:
        if item[0] == "...":
            sub = fragments[item[1]] if isinstance(item[1], str) else item[1]
            out.update(select(obj, sub, variables, fragments))
            continue
        key, name, args, conditions, sub = item
        if any((kind == "include") != bool(bind(a["if"], variables)) for kind, a in conditions):
            continue
        value = obj.get(name)
        if callable(value):
            value = value(**bind(args, variables))
        out[key] = select(value, sub, variables, fragments)
    return out


def execute(text, variables, query, mutation):
    """Answer a request from the root fields in `query` and `mutation`."""
    (kind, name, defaults, selection), fragments = Parser(text).document()
    root = query if kind == "query" else mutation
    for item in selection:
        if item[0] != "..." and item[1] not in root:
            raise LookupError(f"no {kind} {item[1]!r} here (operation {name!r})")
    return select(root, selection, {**defaults, **(variables or {})}, fragments)
