"""Images with objects in COCO's format: boxes, masks and keypoints, their scores, and a data set that is drawn."""
