//! Zigzag and unsigned varints as Kafka writes them.
