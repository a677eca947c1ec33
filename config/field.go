package config

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// fieldsOf returns a pointer to each value of c by its key in the file.
func fieldsOf(c *Config) map[string]any {
	fields := map[string]any{}
	addFields(fields, "", reflect.ValueOf(c).Elem())
	return fields
}

func addFields(fields map[string]any, prefix string, v reflect.Value) {
	for i := range v.NumField() {
		key := prefix + v.Type().Field(i).Tag.Get("toml")
		if f := v.Field(i); f.Kind() == reflect.Struct {
			addFields(fields, key+".", f)
		} else {
			fields[key] = f.Addr().Interface()
		}
	}
}

// setValue stores what the TOML library made of a value.
func setValue(field, value any) error {
	ok := false
	switch p := field.(type) {
	case *string:
		ok = assign(p, value)
	case *bool:
		ok = assign(p, value)
	case *int:
		var n int64
		if ok = assign(&n, value); ok {
			*p = int(n)
		}
	case *[]string:
		var list []string
		if list, ok = stringsOf(value); ok {
			*p = list
		}
	case *Duration:
		var text string
		if assign(&text, value) {
			return p.UnmarshalText([]byte(text))
		}
	}
	if !ok {
		return fmt.Errorf("want %s, not %s", kindOf(field), kindOf(value))
	}
	return nil
}

func assign[T any](to *T, value any) bool {
	v, ok := value.(T)
	if ok {
		*to = v
	}
	return ok
}

func stringsOf(value any) ([]string, bool) {
	items, ok := value.([]any)
	if !ok {
		return nil, false
	}
	list := make([]string, 0, len(items))
	for _, item := range items {
		s, ok := item.(string)
		if !ok {
			return nil, false
		}
		list = append(list, s)
	}
	return list, true
}

// kindOf names the type of a field or of a value for people.
func kindOf(v any) string {
	switch v.(type) {
	case *string, string:
		return "a string"
	case *bool, bool:
		return "true or false"
	case *int, int64:
		return "a whole number"
	case *Duration:
		return `a time span such as "30s"`
	case *[]string:
		return "a list of strings"
	case float64:
		return "a fraction"
	case time.Time:
		return "a date"
	case []any:
		return "a list of something else"
	default:
		return "a table"
	}
}

// setText stores the value of an annotation, or leaves the field as it is.
func setText(field any, text string) error {
	switch p := field.(type) {
	case *string:
		*p = text
	case *bool:
		v, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		*p = v
	case *int:
		v, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		*p = v
	case *[]string:
		*p = strings.Fields(text)
	case *Duration:
		return p.UnmarshalText([]byte(text))
	default:
		return errors.New("cannot be set by an annotation")
	}
	return nil
}
