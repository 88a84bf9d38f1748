"""Makes inputs for any operation out of boto3's service models: no value is random, so two calls send the same bytes."""

import datetime
import functools

try:
    from re import _constants as constants
    from re import _parser as parser
except ImportError:  # before Python 3.11
    import sre_constants as constants
    import sre_parse as parser

SESSION = "arn:aws:bedrock:us-east-1:123456789012:session/11111111-2222-3333-4444-555555555555"
AGENT = "arn:aws:bedrock:us-east-1:123456789012:agent/AGENT12345"
KNOWLEDGE_BASE = "arn:aws:bedrock:us-east-1:123456789012:knowledge-base/KB12345678"
RUNTIME = "arn:aws:bedrock-agentcore:us-east-1:123456789012:runtime/demo-0123456789"
BLUEPRINT = "arn:aws:bedrock:us-east-1:123456789012:blueprint/0123456789ab"
GUARDRAIL = "arn:aws:bedrock:us-east-1:123456789012:guardrail/0123456789ab"
MODEL = "amazon.nova-lite-v1:0"
# Where several services share a method and path, the ARN says whose operation it is; and a model must be a real one.
FIXED = {
    ("bedrock-agent", "resourceArn"): AGENT,
    ("bedrock-agent-runtime", "resourceArn"): SESSION,
    ("bedrock-agentcore-control", "resourceArn"): RUNTIME,
    ("bedrock-data-automation", "resourceARN"): BLUEPRINT,
    ("bedrock", "resourceARN"): GUARDRAIL,
    ("bedrock-runtime", "modelId"): MODEL,
}
FIXED_OF_OPERATION = {
    ("bedrock-agent", name, "resourceArn"): KNOWLEDGE_BASE
    for name in ("GetResourcePolicy", "PutResourcePolicy", "DeleteResourcePolicy")
}
WHEN = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
DEPTH_MAX = 12


class Inputs:
    def __init__(self, service, operation):
        self.service = service
        self.operation = operation

    def make(self):
        shape = self.operation.input_shape
        return self._structure(shape, 0) if shape else {}

    def _structure(self, shape, depth):
        members = shape.members
        if getattr(shape, "is_tagged_union", False):
            wanted = list(members)[:1]
        else:
            wanted = [name for name, member in members.items() if self._is_wanted(shape, name, member)]
        return {name: self._named(name, members[name], depth + 1) for name in wanted}

    @staticmethod
    def _is_wanted(shape, name, member):
        # A token that boto3 would make up differs from call to call.
        made_up = member.metadata.get("idempotencyToken") or name == "clientToken"
        return name in shape.required_members or "location" in member.serialization or made_up

    def _named(self, name, shape, depth):
        fixed = FIXED_OF_OPERATION.get((self.service, self.operation.name, name)) or FIXED.get((self.service, name))
        return fixed if fixed and shape.type_name == "string" else self._value(shape, depth)

    def _value(self, shape, depth):
        kind = shape.type_name
        least = shape.metadata.get("min", 0)
        if getattr(shape, "is_document_type", False):
            return {"answer": 42}
        if kind == "structure":
            return self._structure(shape, depth) if depth < DEPTH_MAX else {}
        if kind == "list":
            return [self._value(shape.member, depth + 1) for _ in range(max(1, least))] if depth < DEPTH_MAX else []
        if kind == "map":
            return {self._value(shape.key, depth + 1): self._value(shape.value, depth + 1)}
        if kind == "string":
            return text(tuple(shape.metadata.get("enum", ())), shape.metadata.get("pattern"), least)
        if kind in ("integer", "long"):
            return int(max(1, least))
        if kind in ("float", "double"):
            return float(max(0.5, least))
        return {"boolean": True, "timestamp": WHEN, "blob": b'{"text":"\x00\xc3\xbc"}'}[kind]


@functools.cache
def text(enum, pattern, least):
    if enum:
        return enum[0]
    made = ""
    if pattern:
        try:
            made = Text().sequence(parser.parse(pattern))
        except parser.error:  # Java's syntax, which Python cannot read
            made = ""
    if not made and pattern:
        made = "a"
    # Without a pattern: what a path, query or header must not lose or change.
    made = made or "a b/c+d~e"
    return made + made[-1] * max(0, least - len(made))


class Text:
    """The shortest text that a pattern describes, but never an empty one where a character may stand."""

    def sequence(self, parsed):
        return "".join(self.one(kind, value) for kind, value in parsed)

    def one(self, kind, value):
        if kind is constants.LITERAL:
            return chr(value)
        if kind is constants.NOT_LITERAL:
            return "a" if value != ord("a") else "b"
        if kind is constants.ANY:
            return "a"
        if kind is constants.IN:
            return self.character(value)
        if kind is constants.BRANCH:
            return next((made for made in map(self.sequence, value[1]) if made), "")
        if kind is constants.SUBPATTERN:
            return self.sequence(value[3])
        if kind in (constants.MAX_REPEAT, constants.MIN_REPEAT):
            least, _, inner = value
            whole_pattern_is_optional = least == 0 and len(inner) == 1 and inner[0][0] is constants.IN
            return self.sequence(inner) * max(least, 1 if whole_pattern_is_optional else 0)
        return ""  # anchors and look-arounds

    @staticmethod
    def character(choices):
        negated = any(kind is constants.NEGATE for kind, _ in choices)
        for candidate in "a0A-_/. :":
            inside = any(Text.holds(kind, value, candidate) for kind, value in choices)
            if inside != negated:
                return candidate
        return chr(next((value for kind, value in choices if kind is constants.LITERAL), ord("a")))

    @staticmethod
    def holds(kind, value, candidate):
        if kind is constants.LITERAL:
            return ord(candidate) == value
        if kind is constants.RANGE:
            return value[0] <= ord(candidate) <= value[1]
        if kind is constants.CATEGORY:
            return {
                constants.CATEGORY_DIGIT: candidate.isdigit(),
                constants.CATEGORY_NOT_DIGIT: not candidate.isdigit(),
                constants.CATEGORY_SPACE: candidate.isspace(),
                constants.CATEGORY_NOT_SPACE: not candidate.isspace(),
                constants.CATEGORY_WORD: candidate.isalnum() or candidate == "_",
                constants.CATEGORY_NOT_WORD: not (candidate.isalnum() or candidate == "_"),
            }[value]
        return False
