"""Hugging Face's Trainer with a tiny model of random weights, reporting to TensorBoard."""
# needs: frameworks
# seconds: 120
# varies: runtime|per_second

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TENSORBOARD_LOGGING_DIR"] = "runs/transformers"

import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, set_seed


class Sentences(Dataset):
    def __len__(self):
        return 32

    def __getitem__(self, index):
        ids = torch.tensor([1, 2 + index % 10, 3])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor(index % 2)}


if __name__ == "__main__":
    set_seed(0)
    config = BertConfig(
        vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, num_labels=2
    )
    arguments = TrainingArguments(
        output_dir="out",
        report_to=["tensorboard"],
        logging_steps=1,
        num_train_epochs=2,
        per_device_train_batch_size=4,
        dataloader_num_workers=2,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    Trainer(model=BertForSequenceClassification(config), args=arguments, train_dataset=Sentences()).train()
