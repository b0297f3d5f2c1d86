package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"

	"clearmlserving/inference/reconcile"
	"clearmlserving/outbound"
	"clearmlserving/serving"
	"clearmlserving/statistics"
	"clearmlserving/statistics/kafka"
)

// kafkaAccess reads how to connect to the brokers of the statistics.
func (a *app) kafkaAccess() (kafka.Access, error) {
	mechanism, err := a.choice("kafka-sasl", kafka.Mechanisms()...)
	encrypted, err2 := a.on("kafka-tls")
	if err := errors.Join(err, err2); err != nil {
		return kafka.Access{}, err
	}
	access := kafka.Access{Mechanism: mechanism, User: a.text("kafka-user"), Password: a.text("kafka-password")}
	cert, key, ca := a.text("kafka-cert"), a.text("kafka-key"), a.setting("kafka-ca")
	if (cert == "") != (key == "") {
		return kafka.Access{}, errors.New("CLEARML_SERVING_KAFKA_CERT and CLEARML_SERVING_KAFKA_KEY belong together: give both or neither")
	}
	if encrypted || cert != "" || ca.value != "" {
		network := outbound.FromEnvironment(a.sys.env)
		access.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		trust := outbound.Trust{Only: outbound.Source{Path: ca.value, From: ca.source}, Explicit: ca.value != ""}
		if access.TLS.RootCAs, err = network.Pool(trust); err != nil {
			return kafka.Access{}, err
		}
		if cert != "" {
			pair, err := tls.LoadX509KeyPair(cert, key)
			if err != nil {
				return kafka.Access{}, fmt.Errorf("%s and %s: %w", a.setting("kafka-cert").source, a.setting("kafka-key").source, err)
			}
			access.TLS.Certificates = []tls.Certificate{pair}
		}
	}
	return access, access.Validate()
}

// statisticsSender makes what sends the statistics of an instance to Kafka, if the instance or its
// service names brokers. dir has its queue.
func (a *app) statisticsSender(dir string, metrics *statistics.Metrics, log *slog.Logger) (*kafka.Sender, error) {
	access, err := a.kafkaAccess()
	if err != nil {
		return nil, err
	}
	sender := kafka.NewSender(kafka.SenderOptions{Lanes: metrics.Lanes(), Servers: a.text("kafka"), Access: access, Dir: dir, Logger: log})
	metrics.SetForwarder(sender)
	return sender, nil
}

// sendFollower tells the sender which brokers the service names.
type sendFollower struct{ sender *kafka.Sender }

// Planned implements reconcile.Follower.
func (f sendFollower) Planned(state *reconcile.State, _ serving.Plan, _ bool) {
	f.sender.Use(state.General[serving.ParamKafkaServiceServer])
}

// StatusChanged implements reconcile.Follower.
func (sendFollower) StatusChanged(func() serving.Status) {}

// Run implements inference.FollowerRunner.
func (f sendFollower) Run(ctx context.Context, _ func() serving.Status) error { //nolint:unparam // of the interface
	f.sender.Run(ctx)
	return nil
}
