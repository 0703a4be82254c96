//! Authentication and authorization.

use super::{BYTES, INT8, INT16, INT32, INT64, NEVER, STRING, Shape, array, field, fields, shape};

pub(super) const SASL_HANDSHAKE: Shape =
    shape(NEVER, &[field("error_code", INT16), field("mechanisms", array(&STRING))]);

pub(super) const SASL_AUTHENTICATE: Shape = shape(
    2,
    &[
        field("error_code", INT16),
        field("error_message", STRING),
        field("auth_bytes", BYTES),
        field("session_lifetime_ms", INT64).since(1),
    ],
);

pub(super) const DESCRIBE_ACLS: Shape = shape(
    2,
    &[
        field("throttle_time_ms", INT32),
        field("error_code", INT16),
        field("error_message", STRING),
        field(
            "resources",
            array(&fields(&[
                field("resource_type", INT8),
                field("resource_name", STRING),
                field("pattern_type", INT8),
                field(
                    "acls",
                    array(&fields(&[
                        field("principal", STRING),
                        field("host", STRING),
                        field("operation", INT8),
                        field("permission_type", INT8),
                    ])),
                ),
            ])),
        ),
    ],
);

pub(super) const CREATE_ACLS: Shape = shape(
    2,
    &[
        field("throttle_time_ms", INT32),
        field("results", array(&fields(&[field("error_code", INT16), field("error_message", STRING)]))),
    ],
);

pub(super) const DELETE_ACLS: Shape = shape(
    2,
    &[
        field("throttle_time_ms", INT32),
        field(
            "filter_results",
            array(&fields(&[
                field("error_code", INT16),
                field("error_message", STRING),
                field(
                    "matching_acls",
                    array(&fields(&[
                        field("error_code", INT16),
                        field("error_message", STRING),
                        field("resource_type", INT8),
                        field("resource_name", STRING),
                        field("pattern_type", INT8),
                        field("principal", STRING),
                        field("host", STRING),
                        field("operation", INT8),
                        field("permission_type", INT8),
                    ])),
                ),
            ])),
        ),
    ],
);

pub(super) const CREATE_DELEGATION_TOKEN: Shape = shape(
    2,
    &[
        field("error_code", INT16),
        field("principal_type", STRING),
        field("principal_name", STRING),
        field("token_requester_principal_type", STRING).since(3),
        field("token_requester_principal_name", STRING).since(3),
        field("issue_timestamp_ms", INT64),
        field("expiry_timestamp_ms", INT64),
        field("max_timestamp_ms", INT64),
        field("token_id", STRING),
        field("hmac", BYTES),
        field("throttle_time_ms", INT32),
    ],
);

pub(super) const RENEW_DELEGATION_TOKEN: Shape =
    shape(2, &[field("error_code", INT16), field("expiry_timestamp_ms", INT64), field("throttle_time_ms", INT32)]);

pub(super) const EXPIRE_DELEGATION_TOKEN: Shape =
    shape(2, &[field("error_code", INT16), field("expiry_timestamp_ms", INT64), field("throttle_time_ms", INT32)]);

pub(super) const DESCRIBE_DELEGATION_TOKEN: Shape = shape(
    2,
    &[
        field("error_code", INT16),
        field(
            "tokens",
            array(&fields(&[
                field("principal_type", STRING),
                field("principal_name", STRING),
                field("token_requester_principal_type", STRING).since(3),
                field("token_requester_principal_name", STRING).since(3),
                field("issue_timestamp", INT64),
                field("expiry_timestamp", INT64),
                field("max_timestamp", INT64),
                field("token_id", STRING),
                field("hmac", BYTES),
                field("renewers", array(&fields(&[field("principal_type", STRING), field("principal_name", STRING)]))),
            ])),
        ),
        field("throttle_time_ms", INT32),
    ],
);

pub(super) const DESCRIBE_USER_SCRAM_CREDENTIALS: Shape = shape(
    0,
    &[
        field("throttle_time_ms", INT32),
        field("error_code", INT16),
        field("error_message", STRING),
        field(
            "results",
            array(&fields(&[
                field("user", STRING),
                field("error_code", INT16),
                field("error_message", STRING),
                field("credential_infos", array(&fields(&[field("mechanism", INT8), field("iterations", INT32)]))),
            ])),
        ),
    ],
);

pub(super) const ALTER_USER_SCRAM_CREDENTIALS: Shape = shape(
    0,
    &[
        field("throttle_time_ms", INT32),
        field(
            "results",
            array(&fields(&[field("user", STRING), field("error_code", INT16), field("error_message", STRING)])),
        ),
    ],
);
