// Package config is the shim's configuration: a TOML file, its drop-ins and the
// annotations of a container, checked as a whole before anything starts.
//
// It owns the keys, their defaults and their limits. A new key is a field of
// [Config], a line of config.toml, which is the commented default, and, if it can
// be wrong, a line of the validation. Only keys that are listed can be set by
// annotations, where the file allows it; keys that name files or programs of the
// host never can. Errors name the key, the file and the line, and all of them at
// once.
//
// A [Config] is a value: there is no state beyond [Load], no goroutine and no
// lock.
//
// The package must never know what the values do: pkg/hypervisor and pkg/shim do
// not import it, cmd translates.
package config
