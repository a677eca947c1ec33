package hyperstart

// Payloads about the network: SETUPINTERFACE, SETUPROUTE, and what STARTPOD
// says of it.
//
// In the ccv2 dialect both commands are declarative: an interface has the
// addresses of its last SETUPINTERFACE and the guest the routes and neighbours
// of its last SETUPROUTE, and no others of those that the host ever named. The
// guest adds no route of its own for the prefix of an address, because
// SETUPROUTE says those as well.

// Interface describes one network interface (SETUPINTERFACE, STARTPOD). A ccv2
// guest finds it by MAC, without one by Device or NewDevice, and waits for its device.
type Interface struct {
	Device      string    `json:"device,omitempty"`
	NewDevice   string    `json:"newDeviceName,omitempty"`
	IPAddresses []Address `json:"ipAddresses,omitempty"`
	MTU         int       `json:"mtu,omitempty"`
	MAC         string    `json:"macAddr,omitempty"`

	// NoARP turns address resolution off; ccv2 only.
	NoARP bool `json:"noArp,omitempty"`
}

// Address is an address with its prefix length in decimal.
type Address struct {
	IP   string `json:"ipAddress"`
	Mask string `json:"netMask"`

	// Peer is the other end of a point-to-point link, to which the prefix
	// length belongs then; ccv2 only.
	Peer string `json:"peer,omitempty"`
}

// Route is one route; Dest is "default" or an address with a prefix length.
// The fields after Device are for ccv2 only, as is IPv6.
type Route struct {
	Dest    string `json:"dest"`
	Gateway string `json:"gateway,omitempty"`
	Device  string `json:"device,omitempty"`

	// Type is a [RouteType]; "" is unicast.
	Type   RouteType `json:"type,omitempty"`
	Source string    `json:"source,omitempty"` // preferred source address
	Metric int       `json:"metric,omitempty"`
	// Scope is the kernel's number: 0 global, 253 link, 254 host.
	Scope    int       `json:"scope,omitempty"`
	Protocol int       `json:"protocol,omitempty"` // who made it, the kernel's number
	TOS      int       `json:"tos,omitempty"`
	OnLink   bool      `json:"onLink,omitempty"` // the gateway needs no route of its own
	MTU      int       `json:"mtu,omitempty"`
	AdvMSS   int       `json:"advMss,omitempty"`
	NextHops []NextHop `json:"nextHops,omitempty"` // instead of Gateway and Device
}

// NextHop is one way of a route that has several.
type NextHop struct {
	Gateway string `json:"gateway,omitempty"`
	Device  string `json:"device"`
	Weight  int    `json:"weight,omitempty"` // 0 is 1
	OnLink  bool   `json:"onLink,omitempty"`
}

// RouteType says what becomes of a packet.
type RouteType string

// The types. The zero type forwards the packet.
const (
	RouteUnicast     RouteType = ""
	RouteBlackhole   RouteType = "blackhole"
	RouteUnreachable RouteType = "unreachable"
	RouteProhibit    RouteType = "prohibit"
	RouteThrow       RouteType = "throw"
)

// routeTypes has the kernel's numbers, RTN_UNICAST and so on.
var routeTypes = map[RouteType]int{
	RouteUnicast: 1, RouteBlackhole: 6, RouteUnreachable: 7, RouteProhibit: 8, RouteThrow: 9,
}

// Number is the kernel's number of the type. ok is false for a type that the
// protocol does not have.
func (t RouteType) Number() (number int, ok bool) {
	number, ok = routeTypes[t]
	return number, ok
}

// RouteTypeOf is the reverse of [RouteType.Number].
func RouteTypeOf(number int) (t RouteType, ok bool) {
	for t, n := range routeTypes {
		if n == number {
			return t, true
		}
	}
	return "", false
}

// Neighbor is a permanent entry of the ARP or neighbour table; ccv2 only.
type Neighbor struct {
	Device string `json:"device"`
	IP     string `json:"ip"`
	MAC    string `json:"mac"`
}

// Routes is the payload of SETUPROUTE. The C agents insist on routes being the
// first key.
type Routes struct {
	Routes    []Route    `json:"routes"`
	Neighbors []Neighbor `json:"neighbors,omitempty"` // ccv2 only
}
