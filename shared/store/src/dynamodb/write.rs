//! Writes views: up to 25 conditional statements in one request.
//!
//! BatchExecuteStatement runs its statements independently of each other. Each is one write unit, as
//! an UpdateItem would be, and has a result of its own. A new view is an `INSERT`, which fails with
//! `DuplicateItem` if there is one. A known view is an `UPDATE`, which fails with
//! `ConditionalCheckFailed` if its version is not the expected one, or if it is gone. With the
//! failure comes the stored item. Should it not come, it is read.
//!
//! Source: DynamoDB API reference, BatchExecuteStatement, BatchStatementRequest and
//! BatchStatementError.

use super::error::{classify, of_statement};
use super::{KEPT_FOR, Views, item, pause_before};
use crate::table::{Fault, Write, WriteError};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeValue, BatchStatementError, BatchStatementErrorCodeEnum as Code, BatchStatementRequest,
    BatchStatementResponse, ReturnValuesOnConditionCheckFailure,
};
use std::time::Duration;

/// How often to try a statement that failed although its request did not. The SDK tries again only
/// what fails as a request.
const ROUNDS: u32 = 3;
/// Bytes of views in one request. Views are a few hundred bytes; of those that have grown to some
/// hundred KiB, as an item may, only a few go together.
const REQUEST_BYTES: usize = 1024 * 1024;
/// The longest pause before the second round. It doubles with each one.
const PAUSE: Duration = Duration::from_millis(50);

/// The statements that write into a table.
#[derive(Debug, Clone)]
pub(super) struct Statements {
    insert: String,
    update: String,
}

impl Statements {
    /// For a table whose items say when they were written, or not.
    pub(super) fn of(table: &str, with_write_times: bool) -> Self {
        let (names, set) = if with_write_times {
            (", 'written_at': ?, 'expires_at': ?", " SET \"written_at\" = ? SET \"expires_at\" = ?")
        } else {
            ("", "")
        };
        // The parameters are in the same order in both, but for the key.
        Self {
            insert: format!(
                "INSERT INTO \"{table}\" VALUE {{'version': ?, 'view': ?, 'title_id': ?{names}, 'pk': ?, 'sk': ?}}"
            ),
            update: format!(
                "UPDATE \"{table}\" SET \"version\" = ? SET \"view\" = ? SET \"title_id\" = ?{set} \
                 WHERE \"pk\" = ? AND \"sk\" = ? AND \"version\" = ?"
            ),
        }
    }
}

/// What became of a statement.
enum Ended {
    Written,
    /// Its condition failed. Holds the stored item, if it came with the failure.
    Lost(Option<item::Item>),
    Failed(Fault),
}

impl Views {
    pub(super) async fn write_all(&self, writes: &[Write<'_>]) -> Vec<Result<(), WriteError>> {
        let mut ended: Vec<Ended> = writes.iter().map(|_| Ended::Failed(unanswered())).collect();
        let mut left: Vec<usize> = (0..writes.len()).collect();
        let mut at_once = writes.len();
        for round in 0..ROUNDS {
            if left.is_empty() {
                break;
            }
            pause_before(round, PAUSE).await;
            let mut again = Vec::new();
            for (places, statements) in self.requests(writes, &left, at_once) {
                match self.execute(statements).await {
                    Ok(answers) => {
                        for (&at, answer) in places.iter().zip(answers) {
                            ended[at] = outcome(answer);
                            // One that was carried out although it failed loses the next race to
                            // itself, which is harmless.
                            if matches!(ended[at], Ended::Failed(Fault::Throttled(_) | Fault::Unavailable(_))) {
                                again.push(at);
                            }
                        }
                    }
                    // One of them may be to blame, and must not be for the others.
                    Err(Fault::Refused(_)) if places.len() > 1 => {
                        at_once = 1;
                        again.extend(places);
                    }
                    // The SDK has tried it again already.
                    Err(fault) => places.iter().for_each(|&at| ended[at] = Ended::Failed(fault.clone())),
                }
            }
            left = again;
        }
        let lost = writes.iter().zip(&ended).filter(|(_, ended)| matches!(ended, Ended::Lost(None)));
        let mut read = self.read_views(lost.map(|(write, _)| write.key), true).await.into_iter();
        let mut results = Vec::with_capacity(writes.len());
        for (write, ended) in writes.iter().zip(ended) {
            results.push(match ended {
                Ended::Written => Ok(()),
                Ended::Failed(fault) => Err(self.error("BatchExecuteStatement", write.key, fault).into()),
                Ended::Lost(Some(item)) => match item::stored(&item) {
                    Ok(stored) => Err(WriteError::Lost(Some(Box::new(stored)))),
                    Err(fault) => Err(self.error("BatchExecuteStatement", write.key, fault).into()),
                },
                Ended::Lost(None) => match read.next() {
                    Some(Ok(stored)) => Err(WriteError::Lost(stored.map(Box::new))),
                    Some(Err(error)) => Err(error.into()),
                    None => Err(self.error("BatchGetItem", write.key, unanswered()).into()),
                },
            });
        }
        results
    }

    /// The requests for these writes, at most so many in each: the index of each write, and its
    /// statement.
    fn requests(
        &self,
        writes: &[Write<'_>],
        left: &[usize],
        at_once: usize,
    ) -> Vec<(Vec<usize>, Vec<BatchStatementRequest>)> {
        let mut requests = vec![(Vec::with_capacity(left.len()), Vec::with_capacity(left.len()))];
        let mut bytes = 0;
        for &at in left {
            let packed = writes[at].view.pack();
            let is_full = requests.last().is_some_and(|(places, _)| places.len() >= at_once);
            if is_full || (bytes > 0 && bytes + packed.len() > REQUEST_BYTES) {
                requests.push((Vec::new(), Vec::new()));
                bytes = 0;
            }
            bytes += packed.len();
            if let Some((places, statements)) = requests.last_mut() {
                places.push(at);
                statements.push(self.statement(&writes[at], packed));
            }
        }
        requests
    }

    fn statement(&self, Write { key, view, expected }: &Write<'_>, packed: Vec<u8>) -> BatchStatementRequest {
        let mut parameters = Vec::with_capacity(8);
        parameters.push(item::number(expected.unwrap_or(0) + 1));
        parameters.push(AttributeValue::B(Blob::new(packed)));
        parameters.push(item::text(&view.title_id));
        if let Some(now) = self.clock.map(|now| now()) {
            parameters.push(item::number(now));
            // DynamoDB's time to live is in seconds.
            parameters.push(item::number(now / 1_000 + KEPT_FOR.as_secs()));
        }
        parameters.push(item::text(&key.profile_id));
        parameters.push(item::text(item::view_sk(key, &self.writer)));
        parameters.extend(expected.map(item::number));
        let statement = if expected.is_some() { &self.statements.update } else { &self.statements.insert };
        BatchStatementRequest::builder()
            .statement(statement)
            .set_parameters(Some(parameters))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .unwrap_or_else(|_| unreachable!("a statement is set"))
    }

    /// Executes statements in one request. One answer per statement, in order.
    async fn execute(&self, statements: Vec<BatchStatementRequest>) -> Result<Vec<BatchStatementResponse>, Fault> {
        let expected = statements.len();
        let answer = self.client.batch_execute_statement().set_statements(Some(statements)).send().await;
        let answer = answer.map_err(|error| classify("BatchExecuteStatement", &self.table, error).fault)?;
        let answers = answer.responses.unwrap_or_default();
        if answers.len() != expected {
            return Err(unanswered());
        }
        Ok(answers)
    }
}

fn outcome(answer: BatchStatementResponse) -> Ended {
    match answer.error {
        None => Ended::Written,
        Some(BatchStatementError { code: Some(Code::ConditionalCheckFailed | Code::DuplicateItem), item, .. }) => {
            Ended::Lost(item)
        }
        Some(error) => Ended::Failed(of_statement(&error)),
    }
}

fn unanswered() -> Fault {
    Fault::Unavailable("the store's answer lacks a statement".to_owned())
}
