//! Checks of the partitions and offsets that a program passes.

use crate::{
    error::{Error, ErrorKind, Result},
    record::{Offset, TopicPartition, check_topic_name},
};

pub(crate) fn check_partition(partition: &TopicPartition) -> Result<()> {
    check_topic_name(&partition.topic)?;
    if partition.partition < 0 {
        return Err(Error::new(ErrorKind::InvalidArgument, format!("{partition}: partitions count from 0")));
    }
    Ok(())
}

pub(crate) fn check_offset(partition: &TopicPartition, offset: Offset) -> Result<Offset> {
    match offset {
        Offset::At(at) if at < 0 => {
            Err(Error::new(ErrorKind::InvalidArgument, format!("{partition}: offset {at} is negative")))
        }
        offset => Ok(offset),
    }
}
