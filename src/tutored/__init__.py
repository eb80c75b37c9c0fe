"""Train one network for detection and semantic segmentation from partly labelled images and tutors."""
