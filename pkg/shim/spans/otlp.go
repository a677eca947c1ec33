package spans

// The messages of OTLP as far as they are used here, as its JSON has them: ids are hexadecimal, 64-bit numbers are strings.
type (
	// Traces is a line of the file.
	Traces struct {
		ResourceSpans []ResourceSpans `json:"resourceSpans"`
	}
	// ResourceSpans are those of one sandbox.
	ResourceSpans struct {
		Resource   Resource     `json:"resource"`
		ScopeSpans []ScopeSpans `json:"scopeSpans"`
	}
	// Resource is the sandbox.
	Resource struct {
		Attributes []Attribute `json:"attributes,omitempty"`
	}
	// ScopeSpans are those of one part of the program.
	ScopeSpans struct {
		Scope Scope  `json:"scope"`
		Spans []Span `json:"spans"`
	}
	// Scope is that part.
	Scope struct {
		Name    string `json:"name"`
		Version string `json:"version,omitempty"`
	}
	// Span is one span.
	Span struct {
		TraceID    string      `json:"traceId"`
		SpanID     string      `json:"spanId"`
		TraceState string      `json:"traceState,omitempty"`
		ParentID   string      `json:"parentSpanId"`
		Flags      uint32      `json:"flags,omitempty"`
		Name       string      `json:"name"`
		Kind       Kind        `json:"kind"`
		Begin      int64       `json:"startTimeUnixNano,string"`
		End        int64       `json:"endTimeUnixNano,string"`
		Attributes []Attribute `json:"attributes,omitempty"`
		Status     Status      `json:"status"`
	}
	// Attribute is a name with a value.
	Attribute struct {
		Key   string `json:"key"`
		Value Value  `json:"value"`
	}
	// Value is a text or a number; the other one is nil.
	Value struct {
		Text   *string `json:"stringValue,omitempty"`
		Number *int64  `json:"intValue,string,omitempty"`
	}
	// Status is whether it has failed.
	Status struct {
		Message string `json:"message,omitempty"`
		Code    int    `json:"code,omitempty"` // StatusError, or 0
	}
	// Kind is what a span is of.
	Kind int
)

// Kinds of spans, and the code of an error, as OTLP has them.
const (
	Internal Kind = 1
	Server   Kind = 2
	Client   Kind = 3

	StatusError = 2
)

// Flags of a span: the eight of its trace, whether it is known that the parent is another program's, and that it is.
const (
	flagSampled     = 0x01
	flagKnownRemote = 0x100
	flagRemote      = 0x200
)

// Text is an attribute with a text.
func Text(key, value string) Attribute { return Attribute{Key: key, Value: Value{Text: &value}} }

// Number is an attribute with a number.
func Number(key string, value int64) Attribute {
	return Attribute{Key: key, Value: Value{Number: &value}}
}
