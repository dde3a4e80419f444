# gnuplot train_loss.gp draws train_loss.svg again
set terminal svg size 860,520 dynamic background rgb 'white'
set termoption noenhanced
set output 'train_loss.svg'
set datafile missing 'nan'
set grid
set key outside right top
set xlabel 'million tokens'
set ylabel 'training loss (nats a token)'
plot '01_baseline_train.dat' using 1:3 with lines title 'baseline', \
     '02_mtp_only_train.dat' using 1:3 with lines title 'mtp_only', \
     '03_muon_8bit_train.dat' using 1:3 with lines title 'muon_8bit', \
     '04_galore2_train.dat' using 1:3 with lines title 'galore2', \
     '05_full_train.dat' using 1:3 with lines title 'full'
