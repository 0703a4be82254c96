//! Configurations, quotas and telemetry.

use super::{BOOL, FLOAT64, INT8, INT16, INT32, STRING, Shape, UUID, array, field, fields, shape};

pub(super) const DESCRIBE_CONFIGS: Shape = shape(
    4,
    &[
        field("throttle_time_ms", INT32),
        field(
            "results",
            array(&fields(&[
                field("error_code", INT16),
                field("error_message", STRING),
                field("resource_type", INT8),
                field("resource_name", STRING),
                field(
                    "configs",
                    array(&fields(&[
                        field("name", STRING),
                        field("value", STRING),
                        field("read_only", BOOL),
                        field("config_source", INT8),
                        field("is_sensitive", BOOL),
                        field(
                            "synonyms",
                            array(&fields(&[field("name", STRING), field("value", STRING), field("source", INT8)])),
                        ),
                        field("config_type", INT8).since(3),
                        field("documentation", STRING).since(3),
                    ])),
                ),
            ])),
        ),
    ],
);

pub(super) const ALTER_CONFIGS: Shape = shape(
    2,
    &[
        field("throttle_time_ms", INT32),
        field(
            "responses",
            array(&fields(&[
                field("error_code", INT16),
                field("error_message", STRING),
                field("resource_type", INT8),
                field("resource_name", STRING),
            ])),
        ),
    ],
);

pub(super) const INCREMENTAL_ALTER_CONFIGS: Shape = shape(
    1,
    &[
        field("throttle_time_ms", INT32),
        field(
            "responses",
            array(&fields(&[
                field("error_code", INT16),
                field("error_message", STRING),
                field("resource_type", INT8),
                field("resource_name", STRING),
            ])),
        ),
    ],
);

pub(super) const LIST_CONFIG_RESOURCES: Shape = shape(
    0,
    &[
        field("throttle_time_ms", INT32),
        field("error_code", INT16),
        field(
            "config_resources",
            array(&fields(&[field("resource_name", STRING), field("resource_type", INT8).since(1)])),
        ),
    ],
);

pub(super) const DESCRIBE_CLIENT_QUOTAS: Shape = shape(
    1,
    &[
        field("throttle_time_ms", INT32),
        field("error_code", INT16),
        field("error_message", STRING),
        field(
            "entries",
            array(&fields(&[
                field("entity", array(&fields(&[field("entity_type", STRING), field("entity_name", STRING)]))),
                field("values", array(&fields(&[field("key", STRING), field("value", FLOAT64)]))),
            ])),
        ),
    ],
);

pub(super) const ALTER_CLIENT_QUOTAS: Shape = shape(
    1,
    &[
        field("throttle_time_ms", INT32),
        field(
            "entries",
            array(&fields(&[
                field("error_code", INT16),
                field("error_message", STRING),
                field("entity", array(&fields(&[field("entity_type", STRING), field("entity_name", STRING)]))),
            ])),
        ),
    ],
);

pub(super) const GET_TELEMETRY_SUBSCRIPTIONS: Shape = shape(
    0,
    &[
        field("throttle_time_ms", INT32),
        field("error_code", INT16),
        field("client_instance_id", UUID),
        field("subscription_id", INT32),
        field("accepted_compression_types", array(&INT8)),
        field("push_interval_ms", INT32),
        field("telemetry_max_bytes", INT32),
        field("delta_temporality", BOOL),
        field("requested_metrics", array(&STRING)),
    ],
);

pub(super) const PUSH_TELEMETRY: Shape = shape(0, &[field("throttle_time_ms", INT32), field("error_code", INT16)]);
