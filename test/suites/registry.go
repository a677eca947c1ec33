package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// certPath is where programs find the certificate that they have to trust.
func certPath(scratch string) string { return filepath.Join(scratch, "registry.pem") }

// startRegistry serves all registries that tests name on the loopback, filled
// with images of ours.
func startRegistry(ctx context.Context, o options) (stop func() error, err error) {
	all, err := images(ctx, o)
	if err != nil {
		return nil, err
	}
	cert, err := certificate(o.scratch)
	if err != nil {
		return nil, fmt.Errorf("registry: certificate: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:443")
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	server := &http.Server{
		Handler:           registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo))),
		ReadHeaderTimeout: time.Minute,
	}
	go func() {
		_ = server.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}))
	}() // until Close
	for ref, image := range all {
		tag, err := name.NewTag(ref)
		if err != nil {
			return nil, err
		}
		if err := remote.Write(tag, image, remote.WithContext(ctx)); err != nil {
			return nil, fmt.Errorf("registry: push %s: %w", ref, err)
		}
	}
	return server.Close, nil
}

// certificate makes one for all registries, and writes it to certPath.
func certificate(scratch string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: registries, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, os.WriteFile(certPath(scratch), text, 0o644)
}
