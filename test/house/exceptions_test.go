package house

// exceptions are what does not keep the budget yet, by rule and subject, with the
// size that it must not exceed. Nothing is to be added: the table is to become
// empty.
var exceptions = map[string]map[string]int{
	"file":    {},
	"func":    {},
	"package": {},
	"fields": {
		"pkg/hypervisor.Spec": 17,
	},
	"methods": {},
	"dialect": {},
	"doc": {
		"pkg/hypervisor":                0,
		"pkg/hypervisor/internal/child": 0,
		"pkg/thread":                    0,
	},
	"state": {},
}
