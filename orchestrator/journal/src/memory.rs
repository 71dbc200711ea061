//! A journal in memory: for tests, and for surveys that no campaign belongs to. It keeps the same promises as one on
//! disk except that it dies with its process.

use crate::{Body, Entry, Head, Journal, JournalError, Listed, Seq, verify};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tde2hsm_protocol::{CampaignId, Digest, Timestamp};

#[derive(Debug, Default)]
pub struct MemoryJournal {
    campaigns: Mutex<BTreeMap<CampaignId, Vec<Entry>>>,
    kept: Mutex<BTreeMap<Digest, String>>,
}

impl MemoryJournal {
    fn entries(&self, campaign: &CampaignId) -> Vec<Entry> {
        self.campaigns.lock().unwrap_or_else(PoisonError::into_inner).get(campaign).cloned().unwrap_or_default()
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn append(&self, campaign: &CampaignId, expected: Seq, at: Timestamp, bodies: &[Body]) -> Result<Head, JournalError> {
        let mut campaigns = self.campaigns.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = campaigns.entry(campaign.clone()).or_default();
        let mut head = entries.last().map_or(Head::START, |e| Head { seq: e.seq, link: e.link });
        if head.seq != expected {
            return Err(JournalError::Conflict { campaign: campaign.clone(), expected, found: head.seq });
        }
        for body in bodies {
            head = head.next(body);
            entries.push(Entry { seq: head.seq, written_at: at, body: body.clone(), link: head.link });
        }
        Ok(head)
    }

    async fn read(&self, campaign: &CampaignId, from: Seq) -> Result<Vec<Entry>, JournalError> {
        let mut entries = self.entries(campaign);
        verify(&entries)?;
        entries.retain(|entry| entry.seq >= from);
        Ok(entries)
    }

    async fn head(&self, campaign: &CampaignId) -> Result<Head, JournalError> {
        Ok(self.entries(campaign).last().map_or(Head::START, |e| Head { seq: e.seq, link: e.link }))
    }

    async fn keep(&self, digest: Digest, text: &str) -> Result<(), JournalError> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).entry(digest).or_insert_with(|| text.to_owned());
        Ok(())
    }

    async fn kept(&self, digest: Digest) -> Result<Option<String>, JournalError> {
        Ok(self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned())
    }

    async fn campaigns(&self) -> Result<Vec<Listed>, JournalError> {
        let campaigns = self.campaigns.lock().unwrap_or_else(PoisonError::into_inner);
        let mut listed: Vec<Listed> = campaigns
            .iter()
            .filter_map(|(campaign, entries)| {
                let (first, last) = (entries.first()?, entries.last()?);
                Some(Listed {
                    campaign: campaign.clone(),
                    head: Head { seq: last.seq, link: last.link },
                    first_at: first.written_at,
                    last_at: last.written_at,
                })
            })
            .collect();
        listed.sort_by_key(|l| std::cmp::Reverse(l.last_at));
        Ok(listed)
    }
}
