//! Creates the table where no template does: in tests, and for a local stack.

use std::error::Error;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType, TimeToLiveSpecification,
};

use super::row::{DUE, DUE_AT, DUE_SHARD, EXPIRES_AT, LIST, LIST_PARTITION, LIST_SORT, PARTITION, SORT};

/// The table could not be created.
#[derive(Debug, thiserror::Error)]
#[error("the table could not be created")]
pub struct CreateError(#[source] Box<dyn Error + Send + Sync>);

impl CreateError {
    fn of(error: impl Error + Send + Sync + 'static) -> Self {
        Self(error.into())
    }
}

/// Creates an empty table with its indexes and its time to live, as `template.yaml` does on AWS. It does not wait until the
/// table is active: emulators of DynamoDB create it at once.
pub async fn create_table(client: &Client, name: &str) -> Result<(), CreateError> {
    let texts = [PARTITION, SORT, LIST_PARTITION, LIST_SORT, DUE_SHARD].map(|name| (name, ScalarAttributeType::S));
    let attributes: Result<Vec<_>, _> = texts
        .into_iter()
        .chain([(DUE_AT, ScalarAttributeType::N)])
        .map(|(name, sort)| AttributeDefinition::builder().attribute_name(name).attribute_type(sort).build())
        .collect();
    client
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .set_attribute_definitions(Some(attributes.map_err(CreateError::of)?))
        .set_key_schema(Some(keys(PARTITION, SORT)?))
        .global_secondary_indexes(index(LIST, LIST_PARTITION, LIST_SORT)?)
        .global_secondary_indexes(index(DUE, DUE_SHARD, DUE_AT)?)
        .send()
        .await
        .map_err(CreateError::of)?;
    let expiry = TimeToLiveSpecification::builder().attribute_name(EXPIRES_AT).enabled(true).build();
    let expiry = expiry.map_err(CreateError::of)?;
    client
        .update_time_to_live()
        .table_name(name)
        .time_to_live_specification(expiry)
        .send()
        .await
        .map_err(CreateError::of)?;
    Ok(())
}

fn index(name: &str, partition: &str, sort: &str) -> Result<GlobalSecondaryIndex, CreateError> {
    GlobalSecondaryIndex::builder()
        .index_name(name)
        .set_key_schema(Some(keys(partition, sort)?))
        .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
        .build()
        .map_err(CreateError::of)
}

fn keys(partition: &str, sort: &str) -> Result<Vec<KeySchemaElement>, CreateError> {
    [(partition, KeyType::Hash), (sort, KeyType::Range)]
        .into_iter()
        .map(|(name, of)| {
            KeySchemaElement::builder().attribute_name(name).key_type(of).build().map_err(CreateError::of)
        })
        .collect()
}
