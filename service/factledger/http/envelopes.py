"""Events on the wire, as Pydantic shapes: what the API's description says may be posted and comes back.

They document; `core.events` decides. Tests hold the two against each other.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from factledger.core import events, facts
from factledger.core.encoding import MAX_INTEGER


class _Shape(BaseModel):
    """Members that may be left out; null is not the same, and is refused."""

    model_config = ConfigDict(extra="forbid")
    nullable: ClassVar[bool] = False

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the schema without the nulls by which Pydantic stands for what is left out."""
        schema = handler(core_schema)
        for member in handler.resolve_ref_schema(schema).get("properties", {}).values():
            if member.get("default", ...) is None:
                del member["default"]
                options = [o for o in member["anyOf"] if cls.nullable or o != {"type": "null"}]
                if len(options) == 1:
                    member |= options[0]
                    del member["anyOf"]
                else:
                    member["anyOf"] = options
        return schema


Id = Annotated[
    str,
    Field(min_length=1, max_length=facts.ID_LENGTH, pattern=r"^\S+$", examples=["person:amrullah-saleh"]),
]
PredicateName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$", examples=["location"])]
EventId = Annotated[str, Field(min_length=1, max_length=events.MAX_KEY_BYTES, examples=["doc4#17"])]
Uri = Annotated[str, Field(min_length=1, max_length=events.MAX_URI_BYTES)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Edtf = Annotated[str, Field(min_length=1, max_length=128, examples=["2021-09/..", "2021-09-06"])]
Moment = Annotated[str, Field(examples=["2021-09-07", "2021-09-07T10:02:11Z"])]
Unit = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
Text256 = Annotated[str, Field(max_length=256)]
Note = Annotated[str, Field(max_length=4096)]
Grade = Literal["A", "B", "C", "D", "E", "F"]


class EntityValue(_Shape):
    """An entity as a value."""

    entity: Id


class DateValue(_Shape):
    """A date or interval as a value."""

    date: Edtf


class TextValue(_Shape):
    """A text in a language."""

    text: str
    lang: str = Field(examples=["en", "prs-AF"])


class Quantity(_Shape):
    """An amount, with its bounds and unit where they are known."""

    amount: Number
    low: Number | None = None
    high: Number | None = None
    unit: str | None = Field(None, min_length=1, max_length=64)


class QuantityValue(_Shape):
    """A quantity as a value."""

    quantity: Quantity


Value = str | bool | Number | EntityValue | DateValue | TextValue | QuantityValue


class EventKey(_Shape):
    """An event as its producer knows it; the source may be left out where it is the same."""

    source: Id | None = None
    id: EventId


Ref = Whole | EventKey


class Document(_Shape):
    """The document that an assertion was found in."""

    uri: Uri | None = None
    sha256: Sha256 | None = None
    title: str | None = Field(None, max_length=1024)
    published_at: Moment | None = None
    language: str | None = Field(None, examples=["en", "prs-AF"])


class Quotation(_Shape):
    """Where in the document: character offsets, and what stands there."""

    start: Whole | None = None
    end: Whole | None = None
    quote: str | None = Field(None, max_length=65_536)
    sha256: Sha256 | None = None


class Extraction(_Shape):
    """How it was extracted; `run` is what a bulk retraction can name."""

    kind: Text256 | None = None
    model: Text256 | None = None
    run: Text256 | None = None


class Provenance(_Shape):
    """Who published it, and on whose word."""

    outlet: Id
    speakers: list[Id] | None = Field(None, max_length=64, description="The origin first.")
    document: Document | None = None
    evidence: Quotation | None = None
    method: Extraction | None = None


class Assertion(_Shape):
    """Somebody says that something holds, or does not."""

    subject: Id
    predicate: PredicateName
    value: Value
    provenance: Provenance
    polarity: Literal["affirms", "denies"] = "affirms"
    valid: Edtf | None = Field(None, description="When it holds in the world, as EDTF.")
    valid_text: str | None = Field(None, max_length=1024, description="When, in the document's own words.")
    asserted_at: Moment | None = Field(None, description="When it was said.")
    certainty: Literal["certain", "probable", "possible"] = "certain"
    confidence: Unit = Field(1, description="How sure the extractor is to have read it rightly.")
    corrects: list[Ref] | None = Field(None, min_length=1, max_length=events.MAX_LIST)


class Where(_Shape):
    """Which assertions a bulk retraction takes back: all given criteria must match."""

    source: Id | None = None
    source_prefix: Annotated[Text256, Field(min_length=1)] | None = None
    outlet: Id | None = None
    document_uri: Uri | None = None
    run: Text256 | None = None
    subject: Id | None = None
    predicate: PredicateName | None = None
    from_position: Whole | None = None
    to_position: Whole | None = Field(None, description="Inclusive.")


class Retraction(_Shape):
    """Events are taken back, as if they had not been said: by name (`targets`) or in bulk (`where`)."""

    targets: list[Ref] | None = Field(None, min_length=1, max_length=events.MAX_LIST)
    where: Where | None = None
    reason: Literal["extractor_error", "resolver_error", "source_withdrew", "duplicate", "legal", "other"]
    note: Note | None = None


class Identity(_Shape):
    """Entities are judged to be one and the same, or not."""

    entities: list[Id] = Field(min_length=2, max_length=events.MAX_LIST)
    judgement: Literal["same", "different", "unsure"]
    score: Unit | None = None
    note: Note | None = None


class Predicate(_Shape):
    """A word of the vocabulary is declared."""

    predicate: PredicateName
    cardinality: Literal["one", "many"]
    value_type: Literal["any", "text", "number", "boolean", "date", "entity", "quantity"] = "any"
    plausible_values: int | None = Field(None, ge=1, le=1_000_000_000)
    lapse_days: float | None = Field(None, ge=0, le=1_000_000)
    unit: str | None = Field(None, max_length=64)
    label: Text256 | None = None
    description: Note | None = None
    personal: bool | None = None


class Agent(_Shape):
    """An outlet, speaker or extractor is rated; null clears what was said before."""

    nullable = True

    agent: Id
    label: Text256 | None = None
    reliability: Grade | Annotated[float, Field(gt=0, lt=1)] | None = None
    fidelity: Unit | None = None
    relays: Id | None = None
    note: Note | None = None


class Policy(_Shape):
    """How the ledger weighs from now on."""

    method: Literal["weighed", "latest", "majority"] | None = None
    parameters: dict[str, Any] | None = None
    note: Note | None = None


class Erasure(_Shape):
    """Content is erased for good; its proofs stay valid."""

    targets: list[Ref] | None = Field(None, min_length=1, max_length=events.MAX_LIST)
    subject: Id | None = None
    basis: Note


class _Envelope(_Shape):
    # Extension attributes are kept as they are.
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str | bool | int]

    specversion: Literal["1.0"]
    source: Id = Field(description="The producer; with `id` it names the event for ever.")
    id: EventId
    time: str | None = Field(None, examples=["2021-09-07T10:02:11Z"])
    datacontenttype: str | None = Field(None, examples=["application/json"])
    dataschema: str | None = Field(None, min_length=1)
    subject: str | None = Field(None, min_length=1)


class AssertionEvent(_Envelope):
    """An assertion, as a CloudEvent."""

    type: Literal["factledger.assertion.v1"]
    data: Assertion


class RetractionEvent(_Envelope):
    """A retraction, as a CloudEvent."""

    type: Literal["factledger.retraction.v1"]
    data: Retraction


class IdentityEvent(_Envelope):
    """An identity judgement, as a CloudEvent."""

    type: Literal["factledger.identity.v1"]
    data: Identity


class PredicateEvent(_Envelope):
    """A declaration of a predicate, as a CloudEvent."""

    type: Literal["factledger.predicate.v1"]
    data: Predicate


class AgentEvent(_Envelope):
    """A rating of an agent, as a CloudEvent."""

    type: Literal["factledger.agent.v1"]
    data: Agent


class PolicyEvent(_Envelope):
    """A change of policy, as a CloudEvent."""

    type: Literal["factledger.policy.v1"]
    data: Policy


class ErasureEvent(_Envelope):
    """An erasure, as a CloudEvent."""

    type: Literal["factledger.erasure.v1"]
    data: Erasure


PostedEvent = Annotated[
    AssertionEvent | RetractionEvent | IdentityEvent | PredicateEvent | AgentEvent | PolicyEvent | ErasureEvent,
    Field(discriminator="type"),
]
PostedData = Assertion | Retraction | Identity | Predicate | Agent | Policy | Erasure

POSTED_EVENT: TypeAdapter[Any] = TypeAdapter(PostedEvent)
POSTED_BATCH: TypeAdapter[Any] = TypeAdapter(Annotated[list[PostedEvent], Field(max_length=10_000)])
POSTED_DATA: TypeAdapter[Any] = TypeAdapter(PostedData)


class SealedEvent(BaseModel):
    """A recorded event as its proof is about it; its content may be left out together with its salt."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str | bool | int]

    specversion: Literal["1.0"]
    type: str
    source: str
    id: str
    ledger: str
    position: int
    recordedat: str
    recordedby: str
    datasha256: Sha256 = Field(description="SHA-256 over the salt and the canonical bytes of `data`.")
    datasalt: str | None = Field(None, description="32 random bytes in base64.")
    data: dict[str, Any] | None = None


class RecordedEvent(SealedEvent):
    """A recorded event: the CloudEvent that was posted, with what the ledger adds."""

    datasalt: str = Field(description="32 random bytes in base64.")
    inforce: bool = Field(description="Whether nothing has taken it back, as of the read.")
    data: dict[str, Any]
