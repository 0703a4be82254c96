//! The usual settings of hosted Kafka services.
